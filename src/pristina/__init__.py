"""Restoring pictures when nobody knows what happened to them."""

from __future__ import annotations

from importlib.metadata import version as _version
from typing import TYPE_CHECKING

from pristina._exports import lazy

if TYPE_CHECKING:
    from pristina.app.client import Client
    from pristina.errors import (
        Cancelled,
        CheckpointError,
        InputError,
        MissingExtra,
        OperatorError,
        PictureError,
        PristinaError,
        SettingError,
        SizeError,
    )
    from pristina.image.picture import Picture
    from pristina.methods.steps.result import Result, State
    from pristina.operators.base import Observation, Operator
    from pristina.operators.recipe import Recipe
    from pristina.planning import Plan, plan
    from pristina.priors.base import Prior
    from pristina.priors.generate import generate, invert
    from pristina.priors.load import load_prior
    from pristina.request import Request
    from pristina.restoration import Restored, restore, run

__version__ = _version("pristina")

_HOMES = {
    "Cancelled": "errors",
    "CheckpointError": "errors",
    "Client": "app.client",
    "InputError": "errors",
    "MissingExtra": "errors",
    "Observation": "operators.base",
    "Operator": "operators.base",
    "OperatorError": "errors",
    "Picture": "image.picture",
    "PictureError": "errors",
    "Plan": "planning",
    "Prior": "priors.base",
    "PristinaError": "errors",
    "Recipe": "operators.recipe",
    "Request": "request",
    "Restored": "restoration",
    "Result": "methods.steps.result",
    "SettingError": "errors",
    "SizeError": "errors",
    "State": "methods.steps.result",
    "generate": "priors.generate",
    "invert": "priors.generate",
    "load_prior": "priors.load",
    "plan": "planning",
    "restore": "restoration",
    "run": "restoration",
}

__all__ = [
    "Cancelled",
    "CheckpointError",
    "Client",
    "InputError",
    "MissingExtra",
    "Observation",
    "Operator",
    "OperatorError",
    "Picture",
    "PictureError",
    "Plan",
    "Prior",
    "PristinaError",
    "Recipe",
    "Request",
    "Restored",
    "Result",
    "SettingError",
    "SizeError",
    "State",
    "generate",
    "invert",
    "load_prior",
    "plan",
    "restore",
    "run",
]

__getattr__, __dir__ = lazy(__name__, _HOMES)
