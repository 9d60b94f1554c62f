"""Restorers in ONNX files, made here, and regressors of ours written as such."""

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from pristina.cli import main  # noqa: E402
from pristina.errors import CheckpointError, InputError  # noqa: E402
from pristina.priors.load import kind_of, load_weights  # noqa: E402
from pristina.restoration import restore  # noqa: E402

PICTURE = torch.rand(1, 3, 70, 90, generator=torch.Generator().manual_seed(0))


def save(path, nodes, shape, out_shape, tensors=(), kind=TensorProto.FLOAT):
    """Write a network from "x" to "y"."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, out_shape)],
        list(tensors),
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def darker(path, shape=(1, 3, "h", "w"), white=1.0, kind=TensorProto.FLOAT):
    """Write a network that subtracts a tenth of white."""
    dtype = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}.get(kind, np.uint8)
    tenth = numpy_helper.from_array(np.array(0.1 * white).astype(dtype), "tenth")
    return save(path, [helper.make_node("Sub", ["x", "tenth"], ["y"])], shape, shape, [tenth], kind)


def doubled(path):
    """Write a network that enlarges twice, by repeating pixels."""
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    nodes = [
        helper.make_node(
            "Resize",
            ["x", "", "scales"],
            ["y"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    ]
    return save(path, nodes, (1, 3, "h", "w"), (1, 3, "a", "b"), [scales])


@pytest.mark.parametrize(
    ("shape", "white", "kind"),
    [
        ((1, 3, "h", "w"), 1.0, TensorProto.FLOAT),
        (("n", 3, "h", "w"), 255.0, TensorProto.FLOAT),
        ((1, 1, "h", "w"), 1.0, TensorProto.FLOAT16),
        ((1, 4, 64, 48), 1.0, TensorProto.FLOAT),
        ((1, 32, 32, 3), 1.0, TensorProto.FLOAT),
    ],
)
def test_channels_sizes_ranges_and_types(tmp_path, shape, white, kind):
    prior = load_weights("direct", darker(tmp_path / "d.onnx", shape, white, kind))
    assert prior.white == white
    found = prior.predict(PICTURE, 1.0)
    # In parts and blended, or at once: the same everywhere.
    assert torch.allclose(found, PICTURE - 0.1, atol=2e-3)


def test_opacity_may_go_in_and_not_come_out(tmp_path):
    ends = [
        numpy_helper.from_array(np.array([v], np.int64), name)
        for name, v in (("from", 0), ("to", 3), ("axis", 1))
    ]
    nodes = [helper.make_node("Slice", ["x", "from", "to", "axis"], ["y"])]
    path = save(tmp_path / "a.onnx", nodes, (1, 4, "h", "w"), (1, 3, "h", "w"), ends)
    found = load_weights("direct", path).predict(PICTURE, 1.0)
    assert torch.allclose(found, PICTURE, atol=1e-6)
    path = save(tmp_path / "b.onnx", nodes, (1, "c", "h", "w"), (1, 3, "h", "w"), ends)
    with pytest.raises(CheckpointError, match="1, 3 or 4 channels are known"):
        load_weights("direct", path)


def test_a_network_for_pixels_up_to_255_is_recognised(tmp_path):
    """It clips at 255, as networks for 8 bits do, and smooths only there."""
    tensors = [
        numpy_helper.from_array(np.array(v, np.float32), name)
        for name, v in (("low", 16.0), ("high", 255.0))
    ]
    nodes = [helper.make_node("Clip", ["x", "low", "high"], ["y"])]
    shape = (1, 3, "h", "w")
    prior = load_weights("direct", save(tmp_path / "c.onnx", nodes, shape, shape, tensors))
    assert prior.white == 255.0
    assert torch.allclose(prior.predict(PICTURE, 1.0), PICTURE.clamp(min=16 / 255), atol=1e-5)


def test_whole_numbers(tmp_path):
    path = darker(tmp_path / "u.onnx", (1, 3, "h", "w"), 100.0, TensorProto.UINT8)
    prior = load_weights("direct", path)
    x = (PICTURE / 2 + 0.5) * 255
    assert torch.allclose(prior.predict(x / 255, 1.0), (x.round() - 10) / 255, atol=1e-6)


def test_a_restored_picture_names_the_file(tmp_path):
    path = darker(tmp_path / "d.onnx")
    done = restore(PICTURE[0], method="indi", prior=str(path))
    assert torch.allclose(done.picture.pixels, (PICTURE[0] - 0.1).clamp(0, 1), atol=1e-5)
    record = done.record()
    assert record["request"]["prior"] == str(path) and record["weights"]["layout"] == "onnx"
    assert kind_of(str(path)) == "direct"
    other = load_weights("direct", darker(tmp_path / "e.onnx", white=0.5))
    assert not torch.equal(other.file_digest, load_weights("direct", path).file_digest)


def test_a_network_that_enlarges_says_so_where_the_size_is_kept(tmp_path, capsys):
    path = doubled(tmp_path / "two.onnx")
    prior = load_weights("direct", path)
    assert prior.scale == 2
    expected = PICTURE.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert torch.allclose(prior.enlarged(PICTURE), expected, atol=1e-6)
    with pytest.raises(InputError, match="--scale 2"):
        restore(PICTURE[0], method="indi", prior=str(path))
    with pytest.raises(SystemExit):
        main(["weights", "check", str(path)])
    assert "2 times" in capsys.readouterr().out


def test_ours_written_as_onnx_give_the_same(tmp_path, capsys):
    path = tmp_path / "blind.onnx"
    with pytest.raises(SystemExit):
        main(["weights", "export", "blind", str(path)])
    assert "multiple of 8" in capsys.readouterr().out
    x = PICTURE[..., :48, :64]
    prior, ours = load_weights("direct", path), load_weights("direct", "blind")
    assert prior.multiple == 8 and prior.scale == 1 and prior.white == 1.0
    assert torch.allclose(prior.predict(x, 1.0), ours.predict(x, 1.0), atol=1e-4)


def test_hostile_files_get_a_sentence(tmp_path):
    noise = tmp_path / "noise.onnx"
    noise.write_bytes(np.random.default_rng(0).bytes(2000))
    with pytest.raises(CheckpointError, match="no ONNX file"):
        load_weights("direct", noise)
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(CheckpointError, match="no ONNX file"):
        load_weights("direct", tmp_path / "empty.onnx")

    outside = numpy_helper.from_array(np.ones(1, np.float32), "tenth")
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    entry = outside.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    shape = (1, 3, "h", "w")
    nodes = [helper.make_node("Sub", ["x", "tenth"], ["y"])]
    path = save(tmp_path / "outside.onnx", nodes, shape, shape, [outside])
    with pytest.raises(CheckpointError, match="outside its folder"):
        load_weights("direct", path)
    with pytest.raises(CheckpointError, match="at most 4096"):
        load_weights("direct", darker(tmp_path / "huge.onnx", (1, 3, 10**6, 10**6)))
    with pytest.raises(CheckpointError, match="1, 3 or 4 channels"):
        load_weights("direct", darker(tmp_path / "seven.onnx", (1, 7, "h", "w")))
    sums = [helper.make_node("ReduceMean", ["x"], ["y"])]
    path = save(tmp_path / "one.onnx", sums, shape, (1, 1, 1, 1))
    with pytest.raises(CheckpointError, match="cannot be used as a restorer"):
        load_weights("direct", path)
    with pytest.raises(CheckpointError, match="goes with the method indi"):
        load_weights("diffusion", darker(tmp_path / "d.onnx"))
