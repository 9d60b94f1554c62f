"""Priors: what is known about clean images, and how it is loaded."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pristina.priors.base import BasePrior, Prediction, Prior, SizeRule
    from pristina.priors.checkpoints.options import LoadOptions
    from pristina.priors.compose import PerChannel
    from pristina.priors.direct import ConditionalPrior, DirectPrior
    from pristina.priors.gaussian import GaussianMixturePrior, GaussianPrior
    from pristina.priors.generate import NotConverged, generate, invert
    from pristina.priors.load import load_prior, load_weights, shipped
    from pristina.priors.unet import UNetPrior
    from pristina.priors.windowed import Windowed

_MODULES = {
    "BasePrior": "base",
    "ConditionalPrior": "direct",
    "DirectPrior": "direct",
    "GaussianMixturePrior": "gaussian",
    "GaussianPrior": "gaussian",
    "LoadOptions": "checkpoints.options",
    "NotConverged": "generate",
    "PerChannel": "compose",
    "Prediction": "base",
    "Prior": "base",
    "SizeRule": "base",
    "UNetPrior": "unet",
    "Windowed": "windowed",
    "generate": "generate",
    "invert": "generate",
    "load_prior": "load",
    "load_weights": "load",
    "shipped": "load",
}

__all__ = [
    "BasePrior",
    "ConditionalPrior",
    "DirectPrior",
    "GaussianMixturePrior",
    "GaussianPrior",
    "LoadOptions",
    "NotConverged",
    "PerChannel",
    "Prediction",
    "Prior",
    "SizeRule",
    "UNetPrior",
    "Windowed",
    "generate",
    "invert",
    "load_prior",
    "load_weights",
    "shipped",
]


class _Package(ModuleType):
    """Package whose public names come before submodules of the same name."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing pristina.priors.generate must not hide the function of that name.
        if not (name in _MODULES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: the import of the package loads nothing heavy."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
