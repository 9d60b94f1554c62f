"""Both ways between pristina and its neighbours: diffusers folders, and deepinv's physics and reconstructors (without depending on it)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from pristina.errors import CheckpointError, OperatorError
from pristina.methods.index import method
from pristina.operators.base import Observation, Operator
from pristina.priors.base import Prior
from pristina.priors.checkpoints.diffusers import EXPORT, PREDICTS
from pristina.priors.network import PatchUNet, PixelNorm
from pristina.priors.unet import UNetPrior
from pristina.types import Draw, generators

FOLDED = """# A diffusion prior on folded pixels

`unet` is a `diffusers.UNet2DModel` that sees {patch} x {patch} pixels as channels and predicts the velocity `eps - x0` of
the straight path `x_u = (1 - u) x0 + u eps`, for u in [0, 1] and pixels in [-1, 1]. It knows: {domain}.

    unet = UNet2DModel.from_pretrained(folder, subfolder="unet")
    folded = torch.nn.functional.pixel_unshuffle(x_u, {patch})
    velocity = torch.nn.functional.pixel_shuffle(unet(folded, 1000 * u{labels}).sample, {patch})
    x0 = x_u - u * velocity

{about}No pipeline of diffusers does this by itself. `pristina.load_prior(folder)` does.
"""


def export_diffusers(prior: Prior, folder: str | Path) -> Path:
    """A diffusers folder (``unet`` and, where there is one, ``scheduler``) with the network of ``prior``.

    A network that sees pixels as they are becomes a pipeline folder that diffusers understands whole. One on folded pixels, as pristina
    trains them, keeps its inner ``UNet2DModel``; the folder's README.md says in four lines how to fold and how to read its output.

    Raises:
        CheckpointError: The prior has no ``UNet2DModel``, or one that diffusers cannot rebuild from its settings.

    Example:
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> export_diffusers(GaussianPrior(), "folder")
        Traceback (most recent call last):
        pristina.errors.CheckpointError: GaussianPrior has no UNet2DModel to export; priors from load_prior have.
    """
    folder = Path(folder)
    network = getattr(prior, "network", None)
    if not isinstance(prior, UNetPrior) or not isinstance(network, (UNet2DModel, PatchUNet)):
        has = f"{type(prior).__name__} has no UNet2DModel to export"
        raise CheckpointError(
            f"{has}; priors from load_prior have." if network is None else f"{has} without what surrounds it (EDM's scaling)."
        )
    unet = network.unet if isinstance(network, PatchUNet) else network
    _check_plain(unet)
    copy = UNet2DModel.from_config({**unet.config, "sample_size": prior.size_rule.native})
    copy.load_state_dict(unet.state_dict())
    copy.save_pretrained(folder / "unet")
    if isinstance(network, PatchUNet):
        rule, classes = prior.size_rule, network.settings["labels"]
        header = {"kind": "prior", "domain": prior.domain, "size_px": rule.native, "fixed_size": rule.fixed, "network": network.settings}
        text = FOLDED.format(
            patch=network.patch,
            domain=prior.domain,
            labels=", class_labels=torch.zeros(len(u), dtype=torch.long)" if classes else "",
            about="Class 0 stands for pictures as they are; the others for those that were altered in training. " if classes else "",
        )
        (folder / EXPORT).write_text(json.dumps(header, indent=2, sort_keys=True) + "\n", "utf-8")
        (folder / "README.md").write_text(text, "utf-8")
        return folder
    table = prior.alpha_bar.double().cpu()
    betas = 1 - table / torch.cat([torch.ones(1, dtype=torch.float64), table[:-1]])
    says = {ours: theirs for theirs, ours in PREDICTS.items()}[prior.prediction]
    DDPMScheduler(trained_betas=betas.tolist(), prediction_type=says).save_pretrained(folder / "scheduler")
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    return folder


def _check_plain(unet: UNet2DModel) -> None:
    config = unet.config
    if any(isinstance(module, PixelNorm) for module in unet.modules()):
        raise CheckpointError("This network normalises pixel by pixel, which UNet2DModel cannot; it cannot be exported.")
    if not isinstance(unet.conv_norm_out, torch.nn.GroupNorm):
        raise CheckpointError("This network has no norm before its last layer (head: linear), which UNet2DModel cannot say.")
    for module in unet.modules():
        width = config.attention_head_dim
        if isinstance(module, Attention) and module.heads != (1 if width is None else module.inner_dim // width):
            raise CheckpointError("This network has the same number of attention heads on every level, which UNet2DModel cannot say.")
    if getattr(unet.time_proj, "num_channels", config.block_out_channels[0]) != config.block_out_channels[0]:
        raise CheckpointError("This network's time embedding is wider than its first level, which UNet2DModel cannot say.")


class PhysicsOperator(Operator):
    """Somebody else's forward model as an operator: anything callable with an ``A_adjoint``, such as a physics of deepinv.

    Args:
        physics: ``physics.A(x)``, or ``physics(x)`` without it, is the observation before noise; ``physics.A_adjoint(y)`` the adjoint.
            It is used as it is: nothing in it is learned, and it must act on every picture of a batch alike.
        size: Height and width of the pictures it takes; None asks ``A_adjoint`` of an empty observation.

    Raises:
        OperatorError: It is not callable, or has no ``A_adjoint``.

    Example:
        >>> import torch
        >>> class Half:
        ...     def __call__(self, x):
        ...         return x / 2
        ...     A_adjoint = __call__
        >>> PhysicsOperator(Half())(torch.ones(1, 3, 1, 1)).flatten().tolist()
        [0.5, 0.5, 0.5]
    """

    name = "physics"
    linear = True

    def __init__(self, physics: Any, size: tuple[int, int] | None = None):
        super().__init__()
        if not callable(physics) or not callable(getattr(physics, "A_adjoint", None)):
            raise OperatorError(f"A physics object must be callable and have A_adjoint(y); {type(physics).__name__} is not, or has not.")
        self._held = (physics,)  # in a tuple, so that its parameters stay its own
        self.size = size

    @property
    def physics(self) -> Any:
        """What was given."""
        return self._held[0]

    def forward(self, x: Tensor) -> Tensor:
        y = getattr(self.physics, "A", self.physics)(x)
        if not isinstance(y, Tensor):
            raise OperatorError(
                f"{type(self.physics).__name__} returns {type(y).__name__}; a tensor (batch, channels, height, width) is needed."
            )
        return y

    def degrade(self, x: Tensor, draw: Draw) -> Tensor:
        """``A(x)`` with Gaussian noise of the physics' own ``noise_model.sigma``, if it has one, drawn for each picture apart."""
        y = self(x)
        return y + self.sigma * draw.normal(*y.shape[1:]) if self.sigma else y

    @property
    def sigma(self) -> float | None:
        """The noise that the physics says it adds, in its own units."""
        sigma = getattr(getattr(self.physics, "noise_model", None), "sigma", None)
        return None if sigma is None else float(sigma)

    def picture_size(self, height: int, width: int) -> tuple[int, int]:
        if self.size is not None:
            return self.size
        seen = self.physics.A_adjoint(torch.zeros(1, 3, height, width))
        return int(seen.shape[-2]), int(seen.shape[-1])

    def adjoint(self, y: Tensor) -> Tensor:
        x: Tensor = self.physics.A_adjoint(y)
        return x

    def for_batch(self, n: int) -> PhysicsOperator:
        return self

    def keep(self, rows: Tensor) -> PhysicsOperator:
        return self

    def describe(self) -> str:
        return f"the forward model {type(self.physics).__name__} that was given"


class Reconstructor:
    """One of our methods with the face of a deepinv reconstructor: ``model(y, physics) -> pictures``.

    Args:
        name: The method, of :data:`pristina.methods.index.METHODS`.
        prior: Its prior.
        settings: Its settings; the defaults if None.
        seed: Of the first picture; the next have ``seed + 1``, ...

    The noise level, where the physics states one, is passed on as ``known_sigma``. A method that does not use the form of the damage is not
    shown the physics but for the size of its pictures.

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> Reconstructor("mmse", GaussianPrior(variance=0.1))(torch.full((2, 3, 8, 8), 0.5)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, name: str, prior: Prior, settings: Any = None, *, seed: int = 0):
        self.entry = method(name)
        self.prior, self.settings, self.seed = prior, settings or self.entry.settings(), seed

    def __call__(self, y: Tensor, physics: Any = None, **ignored: Any) -> Tensor:
        """The restored pictures, (B, C, H, W), in [0, 1]."""
        operator = None if physics is None else PhysicsOperator(physics)
        observation = Observation(y, operator, None if operator is None else operator.sigma)
        result = self.entry.function(observation, self.prior, self.settings, generator=generators(self.seed, len(y)))
        return result.picture
