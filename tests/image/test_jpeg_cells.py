"""The cells of a JPEG file, against the coefficients that libjpeg reads from it."""

import io

import jpeglib
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from pristina.image.jpeg_cells import JpegCells
from pristina.image.picture import Picture
from pristina.metrics.fidelity import psnr
from pristina.restoration import restore


def jpeg(pixels, quality=40, subsampling=0, **options):
    memory = io.BytesIO()
    image = Image.fromarray(pixels)
    image.save(memory, "JPEG", quality=quality, subsampling=subsampling, **options)
    return memory.getvalue()


def tensor(content):
    decoded = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    return torch.from_numpy(decoded.copy()).permute(2, 0, 1) / 255


def coefficients(content, path):
    path.write_bytes(content)
    read = jpeglib.read_dct(str(path))
    return [torch.from_numpy(c.astype(float)) for c in (read.Y, read.Cb, read.Cr) if c is not None]


FACE = astronaut()[:160, 128:288]


@pytest.mark.parametrize("size", [(160, 160), (131, 97), (16, 9)])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_levels_are_those_in_the_file(size, subsampling, progressive, tmp_path):
    content = jpeg(FACE[: size[0], : size[1]], 40, subsampling, progressive=progressive)
    cells = JpegCells.read(content)
    for mine, theirs, known in zip(
        cells.levels, coefficients(content, tmp_path / "a.jpg"), cells.known, strict=True
    ):
        same = (mine == theirs[: known.shape[0], : known.shape[1]]).flatten(2).all(-1)
        assert same[known].all()
        whole = torch.ones_like(known)
        factor = cells.factors[1] if mine is not cells.levels[0] else (1, 1)
        whole[-(-size[0] // factor[0]) // 8 :], whole[:, -(-size[1] // factor[1]) // 8 :] = 0, 0
        assert known.sum() >= 0.95 * whole.sum() - 1


def test_grey_files_have_one_component(tmp_path):
    content = jpeg(FACE[..., 1].copy())
    cells = JpegCells.read(content)
    assert len(cells.levels) == 1
    same = (cells.levels[0] == coefficients(content, tmp_path / "a.jpg")[0]).flatten(2).all(-1)
    assert same[cells.known[0]].all() and cells.known[0].double().mean() > 0.95


def test_what_cannot_be_told_is_not_claimed():
    reduced_in_one_direction = JpegCells.read(jpeg(FACE, subsampling=1))
    assert reduced_in_one_direction.known[0].any()
    assert not reduced_in_one_direction.known[1].any()
    memory = io.BytesIO()
    Image.fromarray(FACE).convert("CMYK").save(memory, "JPEG")
    assert JpegCells.read(memory.getvalue()) is None


@pytest.mark.parametrize(("quality", "subsampling"), [(10, 0), (10, 2), (50, 0), (50, 2)])
def test_a_projected_picture_gives_the_file_again(quality, subsampling, tmp_path):
    """Smoothed, decoded pixels leave their cells; projected and encoded anew, they are inside."""
    content = jpeg(FACE, quality, subsampling)
    decoded, cells = tensor(content), JpegCells.read(content)
    smooth = torch.nn.functional.avg_pool2d(decoded[None], 3, 1, 1, count_include_pad=False)[0]
    tables = Image.open(io.BytesIO(content)).quantization

    def agreement(x):
        pixels = (255 * x).round().byte().permute(1, 2, 0).numpy()
        again = jpeg(np.ascontiguousarray(pixels), -1, subsampling, qtables=tables)
        pairs = zip(
            coefficients(content, tmp_path / "a.jpg"),
            coefficients(again, tmp_path / "b.jpg"),
            cells.known,
            strict=True,
        )
        return min(
            float((a == b).flatten(2).all(-1)[known].double().mean()) for a, b, known in pairs
        )

    projected = cells.project(smooth, decoded)
    assert agreement(smooth) < 0.9 and agreement(projected) > 0.99
    truth = torch.from_numpy(FACE.copy()).permute(2, 0, 1)[None] / 255
    assert float(psnr(projected[None], truth)) > float(psnr(smooth[None], truth))


def test_what_is_inside_stays_as_it_is():
    content = jpeg(FACE, 10)
    truth = torch.from_numpy(FACE.copy()).permute(2, 0, 1) / 255
    cells, decoded = JpegCells.read(content), tensor(content)
    first = cells.project(truth, decoded)
    assert (cells.project(first, decoded) - first).abs().max() < 0.5 / 255


def test_a_restored_file_could_be_behind_the_file(tmp_path):
    """So it is with the weights for compression, and not where the pixels are other ones."""
    content = jpeg(FACE, 10, 2)
    (tmp_path / "a.jpg").write_bytes(content)
    done = restore(tmp_path / "a.jpg", method="indi", prior="jpeg")
    cells = JpegCells.read(content)
    again = cells.project(done.picture.pixels, tensor(content))
    assert (again - done.picture.pixels).abs().max() < 0.01
    free = done.result.images[0].clamp(0, 1)
    assert (cells.project(free, tensor(content)) - free).abs().max() > 0.02
    assert any("JPEG file allows" in note for note in done.notes)
    for other in (restore(tmp_path / "a.jpg", prior="photos-blind"), restore(tensor(content))):
        assert not any("JPEG file allows" in note for note in other.notes)


def test_a_turned_file_says_nothing_about_its_upright_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.jpg").write_bytes(jpeg(FACE, 40, exif=exif))
    (tmp_path / "b.jpg").write_bytes(jpeg(FACE, 40))
    assert Picture.open(tmp_path / "a.jpg").jpeg_cells() is None
    picture = Picture.open(tmp_path / "b.jpg")
    assert picture.jpeg_cells() is not None
    assert picture.with_pixels(picture.pixels * 0.9).jpeg_cells() is None
