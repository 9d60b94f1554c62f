"""Priors: what is known about clean images, and how it is loaded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pristina._exports import Package, lazy

if TYPE_CHECKING:
    from pristina.priors.aware import AwarePrior
    from pristina.priors.base import BasePrior, Prediction, Prior, SizeRule
    from pristina.priors.checkpoints.options import LoadOptions
    from pristina.priors.compose import PerChannel
    from pristina.priors.direct import ConditionalPrior, DirectPrior
    from pristina.priors.gaussian import GaussianMixturePrior, GaussianPrior
    from pristina.priors.generate import NotConverged, generate, invert
    from pristina.priors.load import load_prior, load_weights, shipped
    from pristina.priors.unet import UNetPrior
    from pristina.priors.windowed import Windowed

_HOMES = {
    "AwarePrior": "aware",
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
    "AwarePrior",
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

sys.modules[__name__].__class__ = Package

__getattr__, __dir__ = lazy(__name__, _HOMES)
