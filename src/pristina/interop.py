"""Bridges to other libraries: diffusers folders, and deepinv's physics and reconstructors.

deepinv is not needed: anything that looks like one of its physics will do.
"""

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
from pristina.operators.base import Operator
from pristina.planning import make_plan
from pristina.priors.base import Prior
from pristina.priors.checkpoints.diffusers import EXPORT, PREDICTS
from pristina.priors.patch_unet import PatchUNet, PixelNorm
from pristina.priors.unet import UNetPrior
from pristina.request import Request
from pristina.restoration import run
from pristina.seeds import generators
from pristina.settings import Settings
from pristina.types import Draw, Images

FOLDED = """# A diffusion prior on folded pixels

`unet` is a `diffusers.UNet2DModel` that takes {patch} x {patch} pixels as channels and predicts the
velocity `eps - x0` of the straight path `x_u = (1 - u) x0 + u eps`, for u in [0, 1] and pixels in
[-1, 1]. It was trained on: {domain}.

    unet = UNet2DModel.from_pretrained(folder, subfolder="unet")
    folded = torch.nn.functional.pixel_unshuffle(x_u, {patch})
    velocity = torch.nn.functional.pixel_shuffle(unet(folded, 1000 * u{labels}).sample, {patch})
    x0 = x_u - u * velocity

{about}No pipeline of diffusers does this by itself; `pristina.load_prior(folder)` does.
"""


def export_diffusers(prior: Prior, folder: str | Path) -> Path:
    """Write the network of a prior as a diffusers folder.

    A network that takes plain pixels becomes a whole pipeline folder (``unet`` and ``scheduler``).
    One on folded pixels, as pristina trains them, keeps its inner ``UNet2DModel``; the README.md in
    the folder explains how to fold the pixels and how to read the output.

    Args:
        prior: Diffusion prior.
        folder: Folder that is written.

    Returns:
        Path of the folder.

    Raises:
        CheckpointError: The prior has no ``UNet2DModel``, or one that diffusers cannot rebuild
            from its settings.

    Example:
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> export_diffusers(GaussianPrior(), "folder")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        pristina.errors.CheckpointError: GaussianPrior has no UNet2DModel to export; ...
    """
    folder = Path(folder)
    network = getattr(prior, "network", None)
    if not isinstance(prior, UNetPrior) or not isinstance(network, UNet2DModel | PatchUNet):
        has = f"{type(prior).__name__} has no UNet2DModel to export"
        if network is None:
            raise CheckpointError(f"{has}; load_prior gives priors that have one.")
        raise CheckpointError(f"{has} without what surrounds it (EDM's scaling).")
    unet = network.unet if isinstance(network, PatchUNet) else network
    _check_plain(unet)
    copy = UNet2DModel.from_config({**unet.config, "sample_size": prior.size_rule.native})
    copy.load_state_dict(unet.state_dict())
    copy.save_pretrained(folder / "unet")
    if isinstance(network, PatchUNet):
        _describe_folding(prior, network, folder)
    else:
        _write_pipeline(prior, folder)
    return folder


def _describe_folding(prior: UNetPrior, network: PatchUNet, folder: Path) -> None:
    """Write what a reader of the folder needs to know about folded pixels."""
    rule, has_classes = prior.size_rule, bool(network.settings["labels"])
    header = {
        "kind": "prior",
        "domain": prior.domain,
        "size_px": rule.native,
        "fixed_size": rule.fixed,
        "network": network.settings,
    }
    labels = ", class_labels=torch.zeros(len(u), dtype=torch.long)"
    about = (
        "Class 0 stands for pictures as they are; the others for those that were altered in "
        "training. "
    )
    text = FOLDED.format(
        patch=network.patch,
        domain=prior.domain,
        labels=labels if has_classes else "",
        about=about if has_classes else "",
    )
    (folder / EXPORT).write_text(json.dumps(header, indent=2, sort_keys=True) + "\n", "utf-8")
    (folder / "README.md").write_text(text, "utf-8")


def _write_pipeline(prior: UNetPrior, folder: Path) -> None:
    """Write the scheduler and the index of a DDPM pipeline."""
    table = prior.alpha_bar.double().cpu()
    betas = 1 - table / torch.cat([torch.ones(1, dtype=torch.float64), table[:-1]])
    their_words = {ours: theirs for theirs, ours in PREDICTS.items()}
    prediction = their_words[prior.prediction]
    scheduler = DDPMScheduler(trained_betas=betas.tolist(), prediction_type=prediction)
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DDPMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _check_plain(unet: UNet2DModel) -> None:
    """Check that a configuration of diffusers can describe the network.

    Raises:
        CheckpointError: It cannot.
    """
    config = unet.config
    width, first = config.attention_head_dim, config.block_out_channels[0]
    if any(isinstance(module, PixelNorm) for module in unet.modules()):
        raise CheckpointError(
            "This network normalises pixel by pixel, which UNet2DModel cannot; "
            "it cannot be exported."
        )
    if not isinstance(unet.conv_norm_out, torch.nn.GroupNorm):
        raise CheckpointError(
            "This network has no norm before its last layer (head: linear), "
            "which UNet2DModel cannot express."
        )
    for module in unet.modules():
        if not isinstance(module, Attention):
            continue
        if module.heads != (1 if width is None else module.inner_dim // width):
            raise CheckpointError(
                "This network has the same number of attention heads on every level, "
                "which UNet2DModel cannot express."
            )
    if getattr(unet.time_proj, "num_channels", first) != first:
        raise CheckpointError(
            "This network's time embedding is wider than its first level, "
            "which UNet2DModel cannot express."
        )


class PhysicsOperator(Operator):
    """A forward model of another library as an operator, such as a physics of deepinv.

    Nothing in the forward model is learned, and it must act alike on every image of a batch.

    Args:
        physics: Object whose ``A(x)``, or which itself if it has none, gives the observation before
            noise, and whose ``A_adjoint(y)`` gives the adjoint.
        size: Height and width of the images that it takes; None applies ``A_adjoint`` to an empty
            observation to learn them.

    Raises:
        OperatorError: The object is not callable, or has no ``A_adjoint``.

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
            raise OperatorError(
                "A physics object must be callable and have A_adjoint(y); "
                f"{type(physics).__name__} is not, or has not."
            )
        self._held = (physics,)  # In a tuple, so that its parameters stay its own.
        self.size = size

    @property
    def physics(self) -> Any:
        """The forward model."""
        return self._held[0]

    @property
    def sigma(self) -> float | None:
        """Noise level of the physics' own ``noise_model``, in its units; None if it has none."""
        sigma = getattr(getattr(self.physics, "noise_model", None), "sigma", None)
        return None if sigma is None else float(sigma)

    def forward(self, x: Images) -> Tensor:
        y = getattr(self.physics, "A", self.physics)(x)
        if not isinstance(y, Tensor):
            raise OperatorError(
                f"{type(self.physics).__name__} returns {type(y).__name__}; "
                "a tensor (batch, channels, height, width) is needed."
            )
        return y

    def degrade(self, x: Images, draw: Draw) -> Tensor:
        """Apply the physics and add Gaussian noise of its own level, if it has one."""
        y = self(x)
        return y + self.sigma * draw.normal(*y.shape[1:]) if self.sigma else y

    def picture_size(self, height: int, width: int) -> tuple[int, int]:
        if self.size is not None:
            return self.size
        x = self.physics.A_adjoint(torch.zeros(1, 3, height, width))
        return int(x.shape[-2]), int(x.shape[-1])

    def adjoint(self, y: Tensor) -> Tensor:
        x: Tensor = self.physics.A_adjoint(y)
        return x

    def for_batch(self, n: int) -> PhysicsOperator:
        return self

    def keep(self, rows: Tensor) -> PhysicsOperator:
        return self

    def __deepcopy__(self, memo: Any) -> PhysicsOperator:
        return self

    def describe(self) -> str:
        return f"the given forward model {type(self.physics).__name__}"


class Reconstructor:
    """A method with the interface of a deepinv reconstructor: ``model(y, physics) -> images``.

    The noise level of the physics, if it has one, is passed to the method. A method that does not
    use the form of the degradation gets the size of its images from the physics, and nothing else.

    Args:
        name: Name of the method, see :data:`pristina.methods.index.METHODS`.
        prior: Prior of the method.
        settings: Settings of the method; None takes the defaults.
        seed: Random seed of the first image (default 0); the next ones have ``seed + 1``, ...

    Example:
        >>> import torch
        >>> from pristina.priors.gaussian import GaussianPrior
        >>> Reconstructor("mmse", GaussianPrior(variance=0.1))(torch.full((2, 3, 8, 8), 0.5)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, name: str, prior: Any, settings: Settings | None = None, *, seed: int = 0):
        self.entry = method(name)
        self.prior, self.seed = prior, seed
        self.settings = settings or self.entry.settings()

    def __call__(self, y: Images, physics: Any = None, **ignored: Any) -> Tensor:
        """Restore images.

        Args:
            y: Observations, (B, C', h, w).
            physics: Forward model behind them; None if nothing is known.
            ignored: Further arguments of a deepinv reconstructor.

        Returns:
            Restored images, (B, C, H, W), in [0, 1].
        """
        size = (y.shape[-2], y.shape[-1])
        operator = None if physics is None else PhysicsOperator(physics)
        sigma = None if operator is None else operator.sigma
        if operator is not None and (
            self.entry.operator == "never"
            or (self.entry.operator == "size" and operator.picture_size(*size) == size)
        ):
            operator = None
        plan = make_plan(
            Request(self.entry.name, seed=self.seed, device=str(y.device)),
            size,
            weights=self.prior,
            operator=operator,
            settings=self.settings,
            known_sigma=sigma,
        )
        return run(plan, y, generator=generators(self.seed, len(y))).images
