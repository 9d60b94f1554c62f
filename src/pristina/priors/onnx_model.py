"""Restorers of other projects in ONNX files, as regressors.

What a file does not say is found by trying: the number of which both sides must be a multiple, how
many times larger the answer is, and whether pixels lie in [0, 1] or in [0, 255].
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pristina.errors import CheckpointError, InputError, MissingExtra
from pristina.files import sha256_of
from pristina.image.fit import pad
from pristina.priors.checkpoints.header import printable
from pristina.priors.direct import DirectPrior
from pristina.priors.windowed import blend_weight, window_starts

SUFFIX = ".onnx"
TILE_PX, OVERLAP = 512, 0.125
"""Side in pixels of the parts that are given to a network of any size, and how much of it the next
one shares."""
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
CHANNELS = (1, 3, 4)
"""Possible numbers of channels."""
MOST_PX = 4096
"""Largest fixed side that is believed."""
MAX_BYTES = 2**31
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}


class OnnxRegressor(DirectPrior):
    """Image-to-image network in an ONNX file; it takes no time t, and always restores fully.

    Images of any size are accepted: larger ones than the network takes at once are computed in
    overlapping parts that are blended.

    Args:
        path: The file, with one input and at least one output, (1, C, H, W) or (1, H, W, C), of 1,
            3 or 4 channels (the fourth is opacity and filled with ones).
        device: Device of the computation; CUDA is used if onnxruntime has it.

    Attributes:
        scale: Number of times that the answer is larger than the input.
        n_parameters: Number of weights in the file.

    Raises:
        CheckpointError: It is no ONNX file, or not such a network.
        MissingExtra: onnx and onnxruntime are not installed.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu"):
        super().__init__(domain="what its ONNX file was made for")
        onnx, runtime = _packages()
        model = _read(onnx, path)
        self.n_parameters = sum(
            int(np.prod(tensor.dims, dtype=np.int64)) for tensor in model.graph.initializer
        )
        said = {entry.key: entry.value for entry in model.metadata_props}
        self.domain = printable(said.get("domain", self.domain), 500)
        self.session = _session(runtime, path, torch.device(device))
        self._read_input()
        self.white = 255.0 if self.dtype is np.uint8 else 1.0
        self.multiple, self.scale = self._tried()
        if self.dtype is not np.uint8:
            self.white = self._range()
        digest = sha256_of(path)
        self.source = {"file": str(path), "sha256": digest, "layout": "onnx"}
        bits = torch.frombuffer(bytearray.fromhex(digest), dtype=torch.uint8)
        self.register_buffer("file_digest", bits, persistent=True)

    def _read_input(self) -> None:
        """Read names, type, layout and fixed size of the input."""
        inputs = self.session.get_inputs()
        if len(inputs) != 1:
            raise CheckpointError(
                f"It takes {len(inputs)} inputs; a restorer takes one, the picture."
            )
        one = inputs[0]
        if one.type not in DTYPES:
            raise CheckpointError(f"Its input is a {one.type}; float, float16 and uint8 are known.")
        shape = [n if isinstance(n, int) and n > 0 else None for n in one.shape]
        if len(shape) != 4 or shape[0] not in (1, None):
            raise CheckpointError(
                f"Its input is {_words(one.shape)}; (1, channels, height, width) is needed."
            )
        self.input_name, self.dtype = one.name, DTYPES[one.type]
        self.channels_last = shape[1] not in CHANNELS and shape[3] in CHANNELS
        planes, sides = (shape[3], shape[1:3]) if self.channels_last else (shape[1], shape[2:])
        if planes not in CHANNELS:
            raise CheckpointError(
                f"Its input is {_words(one.shape)}; 1, 3 or 4 channels are known."
            )
        self.planes = planes
        if (sides[0] is None) != (sides[1] is None) or max(n or 0 for n in sides) > MOST_PX:
            raise CheckpointError(
                f"Its input is {_words(one.shape)}; both sides must be free, or at most {MOST_PX}."
            )
        self.fixed = None if sides[0] is None else (int(sides[0]), int(sides[1] or 0))

    def _tried(self) -> tuple[int, int]:
        """Return the multiple that both sides must have, and the scale of the answer.

        Raises:
            CheckpointError: No size works, or the answer is no picture.
        """
        reason: Any = None
        for multiple in (1,) if self.fixed else MULTIPLES:
            sides = self.fixed or (64 + multiple, 64 + 3 * multiple)
            x = torch.linspace(0.2, 0.8, sides[0] * sides[1]).view(1, 1, *sides)
            try:
                found = self._run(x.expand(1, 3, -1, -1))
            except Exception as error:  # Whatever onnxruntime raises; it has no base class.
                reason = error
                continue
            ratio = found.shape[-2] / sides[0], found.shape[-1] / sides[1]
            if ratio[0] == ratio[1] and ratio[0] in (1, 2, 3, 4, 8):
                if not bool(found.isfinite().all()):
                    raise CheckpointError("It answers with NaN or infinity.")
                return multiple, int(ratio[0])
            reason = f"it makes {found.shape[-1]} x {found.shape[-2]} of {sides[1]} x {sides[0]} px"
        raise CheckpointError(f"It cannot be used as a restorer: {printable(str(reason), 300)}")

    def _range(self) -> float:
        """Return the white of the pixels: 1, or 255.

        A network for [0, 255] that is given [0, 1] sees a black picture, and adds to it what is
        little in its range and much in [0, 1].
        """
        sides = self.fixed or (64, 64)
        rows, columns = (torch.linspace(-1, 1, n) for n in sides)
        x = 0.5 + 0.3 * rows[:, None].sin() * columns.cos()
        x = torch.stack([x, 1.2 * x.square(), 0.9 * x])[None]
        changes = {}
        for white in (1.0, 255.0):
            self.white = white
            found = self._run(x)
            small = found[..., :: self.scale, :: self.scale]
            changes[white] = float((small - x).abs().mean())
        return 255.0 if changes[1.0] > 0.15 and changes[255.0] < changes[1.0] / 4 else 1.0

    def _run(self, x: Tensor) -> Tensor:
        """Call the network on one image, (1, 3, h, w) in [0, 1], of a size that it takes."""
        if self.planes == 1:
            return torch.cat([self._call_planes(plane) for plane in x.split(1, 1)], 1)
        opaque = torch.ones_like(x[:, :1])
        return self._call_planes(torch.cat([x, opaque], 1) if self.planes == 4 else x)[:, :3]

    def _call_planes(self, x: Tensor) -> Tensor:
        values = (self.white * x.detach().cpu()).numpy()
        if self.dtype is np.uint8:
            values = values.round().clip(0, 255)
        values = values.astype(self.dtype)
        values = values.transpose(0, 2, 3, 1) if self.channels_last else values
        out = self.session.run(None, {self.input_name: np.ascontiguousarray(values)})[0]
        found = torch.from_numpy(np.asarray(out, np.float32)) / self.white
        if found.ndim != 4:
            raise CheckpointError(f"Its output has {found.ndim} dimensions, not four.")
        found = found.permute(0, 3, 1, 2) if self.channels_last else found
        if found.shape[1] != x.shape[1] and not (x.shape[1] == 4 and found.shape[1] == 3):
            raise CheckpointError(f"It makes {found.shape[1]} channels of {x.shape[1]}.")
        return found

    def regress(self, x_t: Tensor, t: Tensor) -> Tensor:
        if self.scale != 1:
            raise InputError(
                f"This network enlarges {self.scale} times, and the picture is to keep its size; "
                f"enlarge with it: --scale {self.scale} --prior {self.source['file']}."
            )
        return self.enlarged(x_t)

    def enlarged(self, x: Tensor) -> Tensor:
        """Return images, (B, 3, H, W), as the network makes them, ``scale`` times larger."""
        return torch.cat([self._in_parts(one).to(x) for one in x.split(1)])

    def _in_parts(self, x: Tensor) -> Tensor:
        """Compute one image in overlapping parts, and blend them."""
        height, width = x.shape[-2:]
        sides = self.fixed or tuple(
            min(TILE_PX, -(-n // self.multiple) * self.multiple) for n in (height, width)
        )
        x = pad(x, max(height, sides[0]), max(width, sides[1]))
        tops, lefts = (
            window_starts(n, side, 0.25 if self.fixed else OVERLAP)
            for n, side in zip(x.shape[-2:], sides, strict=True)
        )
        s = self.scale
        shape = (1, 3, s * x.shape[-2], s * x.shape[-1])
        total, weights = torch.zeros(shape), torch.zeros(1, 1, *shape[-2:])
        weight = _rectangle(s * sides[0], s * sides[1])
        for top in tops:
            for left in lefts:
                part = self._run(x[..., top : top + sides[0], left : left + sides[1]])
                place = (
                    ...,
                    slice(s * top, s * (top + sides[0])),
                    slice(s * left, s * (left + sides[1])),
                )
                total[place] += weight * part
                weights[place] += weight
        return (total / weights)[..., : s * height, : s * width]


def _rectangle(height: int, width: int) -> Tensor:
    """Return the weight of a part's pixels, (height, width), falling smoothly to its edge."""
    columns, rows = (blend_weight(n)[n // 2] + 1e-3 for n in (width, height))
    return rows[:, None] * columns


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise MissingExtra(
            "ONNX files need the extra packages of pristina[onnx]: pip install 'pristina[onnx]'."
        ) from error
    return onnx, onnxruntime


def _read(onnx: Any, path: Path) -> Any:
    """Read the graph of a file, without what lies in other files.

    Raises:
        CheckpointError: It cannot be read, is no ONNX file, or names files outside its folder.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path} has more than 2 GiB; such files are not read.")
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except CheckpointError:
        raise
    except Exception as error:  # A fault of the parser, which is that of protobuf.
        raise CheckpointError(f"{path} is no ONNX file, or it is damaged.") from error
    if not model.graph.node:
        raise CheckpointError(f"{path} is no ONNX file, or it holds no network.")
    folder = path.resolve().parent
    for tensor in _tensors(model.graph):
        for entry in tensor.external_data:
            beside = (folder / entry.value).resolve()
            if entry.key == "location" and beside.parent != folder:
                raise CheckpointError(
                    f"{path} keeps weights in {printable(entry.value)}, outside its folder; "
                    "this is refused."
                )
    return model


def _tensors(graph: Any) -> Iterable[Any]:
    """Yield all tensors of a graph, and of the graphs within its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _tensors(inner)


def _session(runtime: Any, path: Path, device: torch.device) -> Any:
    """Open a file with onnxruntime.

    Raises:
        CheckpointError: It refuses the file.
    """
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in runtime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    try:
        return runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # Whatever onnxruntime raises; it has no base class.
        raise CheckpointError(f"{path} cannot be opened: {printable(str(error), 300)}") from error


def _words(shape: Iterable[Any]) -> str:
    return f"({', '.join(printable(str(n), 20) for n in shape)})"
