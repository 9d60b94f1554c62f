"""Regressors as ONNX files, for other programs."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from pristina.errors import CheckpointError, MissingExtra
from pristina.files import atomic, check_outputs
from pristina.priors.base import to_signed, to_unit
from pristina.priors.direct import DirectNetwork, regress
from pristina.priors.load import load_weights
from pristina.priors.onnx_model import SUFFIX

OPSET = 17
"""Version of ONNX's operators, which programs since 2022 read."""


class _OneCall(nn.Module):
    """The regression at t = 1, from pixels in [0, 1] to pixels in [0, 1]."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Restore images, (n, 3, H, W)."""
        return to_unit(regress(self.network, to_signed(image), torch.ones_like(image[:, 0, 0, 0])))


def export_onnx(source: str, out: Path) -> int:
    """Write a regressor of ours as an ONNX file.

    Args:
        source: Shipped name or weight file.
        out: Path of the file, ``NAME.onnx``.

    Returns:
        The number of pixels of which both sides of a picture must be a multiple.

    Raises:
        CheckpointError: The weights are no regressor of ours.
        InputError: The file cannot be written.
        MissingExtra: onnx is not installed.
    """
    if out.suffix.lower() != SUFFIX:
        raise CheckpointError(
            f"The file is written as ONNX; call it {out.with_suffix(SUFFIX).name}."
        )
    check_outputs([], [out])
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra(
            "ONNX files need the extra packages of pristina[onnx]: pip install 'pristina[onnx]'."
        ) from error
    prior = load_weights("direct", source, dtype=torch.float32)
    if not isinstance(prior, DirectNetwork):
        raise CheckpointError(f"{source} is no network of ours; there is nothing to export.")
    multiple = prior.network.multiple
    sides = {0: "n", 2: "height", 3: "width"}
    with atomic(out) as beside, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The exporter remarks on what it is told to trace.
        torch.onnx.export(
            _OneCall(prior.network).eval(),
            (torch.zeros(1, prior.channels, 4 * multiple, 6 * multiple),),
            str(beside),
            input_names=["image"],
            output_names=["restored"],
            dynamic_axes={"image": sides, "restored": sides},
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(str(beside))
        told = {"domain": prior.domain, "pixels": "[0, 1]", "multiple": str(multiple)}
        onnx.helper.set_model_props(model, told)
        onnx.save(model, str(beside))
    return multiple
