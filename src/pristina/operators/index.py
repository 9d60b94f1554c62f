"""The table of operators: every word that a recipe can use."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_type_hints

from pristina.operators.base import Operator
from pristina.operators.blur import (
    AnisotropicBlur,
    Defocus,
    FreeKernel,
    GaussianBlur,
    MotionBlur,
    VaryingBlur,
)
from pristina.operators.jpeg import JPEG
from pristina.operators.learned import LearnedOperator
from pristina.operators.mask import Mask
from pristina.operators.noise import GaussianNoise, Noise, PoissonNoise, SpeckleNoise
from pristina.operators.radon import Radon
from pristina.operators.resample import Downsample
from pristina.operators.tone import Exposure, Gamma, Grey, Haze
from pristina.operators.warp import Elastic, Turbulence
from pristina.operators.weather import Rain, WaterDrops

__all__ = ["OPERATORS", "OperatorEntry"]


@dataclass(frozen=True)
class OperatorEntry:
    """A word of the recipe language.

    Attributes:
        title: Description in one line.
        build: Constructor; its arguments are those of the recipe.
        example: Example of the arguments that have no default.
        case: Arguments with which the test battery runs the operator on 12 x 12 px images; the
            example if empty.
        form: Constructor of the same form of damage with a neutral start in place of what
            ``build`` draws at random; it takes those arguments of ``build`` that still mean
            something. ``build`` itself if None.
        places: Drawn features that nothing can estimate; a recipe with such a word cannot be the
            form of unknown damage.
        drawn: Argument that makes ``build`` draw something that a method must know, and what
            that is: a form that gives this argument must give the seed too.
    """

    title: str
    build: Callable[..., Operator]
    example: str = ""
    case: str = ""
    form: Callable[..., Operator] | None = None
    places: str = ""
    drawn: tuple[str, str] | None = None

    @property
    def is_noise(self) -> bool:
        """Whether ``build`` makes a :class:`~pristina.operators.noise.Noise`."""
        made = self.build
        if not inspect.isclass(made):
            made = get_type_hints(made).get("return", Operator)
        return issubclass(made, Noise)


OPERATORS = {
    "blur": OperatorEntry("isotropic Gaussian blur", GaussianBlur, "sigma=2", "sigma=1.3,size=7"),
    "anisotropic": OperatorEntry(
        "Gaussian blur with two widths and a direction",
        AnisotropicBlur,
        "sigma_x=3,sigma_y=1",
        "sigma_x=2,sigma_y=0.8,angle=30,size=7",
    ),
    "defocus": OperatorEntry("disc blur", Defocus, "radius=3", "radius=2.3,size=7"),
    "motion": OperatorEntry(
        "blur with a random motion kernel",
        MotionBlur,
        case="size=7,intensity=0.5",
        form=FreeKernel.gaussian,
    ),
    "kernel": OperatorEntry(
        "blur with an unknown kernel",
        FreeKernel.from_arguments,
        case="size=7,sigma=1.5,boundary=zero",
    ),
    "varying": OperatorEntry(
        "motion blur that varies over the image",
        VaryingBlur.drawn,
        case="size=5,rows=2,columns=3",
        form=VaryingBlur.free,
    ),
    "area": OperatorEntry("reduction by block means", Downsample.area, "factor=4", "factor=3"),
    "bicubic": OperatorEntry(
        "anti-aliased bicubic reduction", Downsample.bicubic, "factor=4", "factor=2"
    ),
    "antialias": OperatorEntry(
        "reduction through an unknown kernel", Downsample.antialias, "factor=4", "factor=2,size=5"
    ),
    "noise": OperatorEntry(
        "white Gaussian noise", GaussianNoise, "sigma=0.05", "sigma=0.1,learnable=yes"
    ),
    "poisson": OperatorEntry("shot noise", PoissonNoise, "peak=50", "peak=30,learnable=yes"),
    "speckle": OperatorEntry(
        "mixture of multiplicative and additive noise",
        SpeckleNoise,
        case="lam=0.3,sigma=0.1,learnable=yes",
    ),
    "jpeg": OperatorEntry("JPEG compression", JPEG, "quality=20", "quality=30,rounding=soft"),
    "mask": OperatorEntry(
        "missing pixels",
        Mask.from_arguments,
        case="box=4",
        drawn=("drop", "Which pixels are lost"),
    ),
    "grey": OperatorEntry("lost colour", Grey),
    "exposure": OperatorEntry("wrong exposure", Exposure, "gain=0.5"),
    "gamma": OperatorEntry("wrong gamma", Gamma, "gamma=2", "gamma=1.7"),
    "haze": OperatorEntry("haze", Haze, case="transmission=0.6,airlight=0.8,grid=2"),
    "elastic": OperatorEntry(
        "elastic deformation",
        Elastic,
        case="amplitude_px=1.3,scale_px=4,extent_px=12",
        form=Elastic.flat,
    ),
    "turbulence": OperatorEntry(
        "hot air: tilt and blur",
        Turbulence,
        case="tilt_px=0.7,scale_px=3,sigma=1,size=5,extent_px=12",
        form=Turbulence.flat,
    ),
    "rain": OperatorEntry("rain streaks", Rain, case="density=0.02,length_px=5", places="streaks"),
    "drops": OperatorEntry(
        "water drops on the lens", WaterDrops, case="count=3,radius_px=3", places="drops"
    ),
    "radon": OperatorEntry(
        "sparse-view tomography", Radon, "n_angles=30,size=64", "n_angles=5,size=12"
    ),
    "learned": OperatorEntry(
        "a small network, for damage of unknown form", LearnedOperator, case="width=4"
    ),
}
"""Words of recipes, see :class:`pristina.operators.recipe.Recipe`."""
