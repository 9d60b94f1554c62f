"""A picture is restored first and enlarged last; what enlarges is not for pictures of one size."""

import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from pristina.cli import main
from pristina.errors import SettingError
from pristina.image.fit import resize
from pristina.image.picture import Picture
from pristina.request import Request
from pristina.restoration import restore

LARGE = Picture.from_array(astronaut()[20:116, 140:260]).pixels


def psnr(a, b):
    return float(-10 * (a - b).square().mean().log10())


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_it_is_better_than_bicubic_enlargement(scale):
    small = resize(LARGE[None], 96 // scale, 120 // scale)[0]
    done = restore(small, method="nothing", scale=scale)
    plain = resize(small[None], 96, 120)[0]
    assert done.picture.pixels.shape == LARGE.shape
    assert psnr(done.picture.pixels, LARGE) > psnr(plain, LARGE) + 0.5
    assert f"enlarged {scale} times" in done.notes[0]


def test_the_method_comes_first():
    noisy = LARGE + 0.1 * torch.randn(LARGE.shape, generator=torch.Generator().manual_seed(0))
    noisy = noisy.clamp(0, 1)
    done = restore(noisy, method="indi", prior="denoise", scale=2)
    clean = restore(noisy, method="indi", prior="denoise").picture.pixels
    after = restore(clean, method="nothing", scale=2)
    assert torch.equal(done.picture.pixels, after.picture.pixels)
    request = Request.from_record({**done.record(), "machine": {}})
    assert (request.scale, request.prior) == (2, "denoise")


def test_weights_that_enlarge_are_refused_where_the_size_stays():
    for method in ("auto", "indi"):
        with pytest.raises(SettingError, match="--scale 4"):
            restore(LARGE, method=method, prior="x4")
    by_name = restore(LARGE[:, :32, :32], method="indi", prior="x4", scale=2)
    by_itself = restore(LARGE[:, :32, :32], method="nothing", scale=2)
    assert torch.equal(by_name.picture.pixels, by_itself.picture.pixels)
    assert by_name.record()["request"]["prior"] == "x4"
    still = restore(LARGE[:, :16, :16], method="indi", prior="x4", operator="bicubic:factor=4")
    assert still.picture.size == (64, 64)
    with pytest.raises(SettingError, match="both enlarge"):
        restore(LARGE, method="indi", prior="x4", operator="bicubic:factor=4", scale=4)
    with pytest.raises(SettingError, match="scale"):
        restore(LARGE, scale=5)


def test_opacity_bits_and_resolution_survive(tmp_path):
    alpha = torch.zeros(1, 96, 120)
    alpha[..., 40:] = 1
    before = Picture.from_pixels(LARGE)
    path = tmp_path / "in.png"
    image = Image.fromarray((255 * torch.cat([LARGE, alpha])).byte().permute(1, 2, 0).numpy())
    image.save(path, dpi=(100, 100))
    out = tmp_path / "out.png"
    with pytest.raises(SystemExit) as ended:
        main(["restore", str(path), "-o", str(out), "--scale", "2", "--method", "nothing"])
    assert not ended.value.code
    with Image.open(out) as made:
        assert made.size == (240, 192) and made.mode == "RGBA"
        assert round(made.info["dpi"][0]) == 200
        assert made.getchannel("A").getextrema() == (0, 255)
    deep = restore(Picture(before.pixels, depth=16), method="nothing", scale=2).picture
    deep.save(tmp_path / "deep.png")
    assert Picture.open(tmp_path / "deep.png").depth == 16
