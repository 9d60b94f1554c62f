"""How methods use the form of the degradation that they are given."""

from __future__ import annotations

from typing import Any

from pristina.errors import InputError, SizeError
from pristina.image.picture import MAX_PIXELS
from pristina.methods.index import MethodEntry
from pristina.operators.base import Operator
from pristina.operators.noise import white_noise_sigma
from pristina.operators.tone import Grey


def check_operator_use(entry: MethodEntry, operator: Operator | None) -> None:
    """Check that a method that needs an operator has one, and one that uses none has none.

    Raises:
        InputError: It is not so.
    """
    if entry.operator == "required" and operator is None:
        raise InputError(
            f"{entry.name} needs the form of the degradation: give an operator, "
            "for example 'blur:sigma=2 | noise:sigma=0.05'."
        )
    if entry.operator == "never" and operator is not None:
        raise InputError(
            f"{entry.name} does not use the form of the degradation; "
            "leave the operator out, or take a method that does."
        )


def check_output(
    entry: MethodEntry,
    operator: Operator | None,
    size: tuple[int, int],
    output_size: tuple[int, int],
) -> None:
    """Check the size of the restored images, and that an operator given for it changes it.

    Args:
        entry: The method.
        operator: Form of the degradation.
        size: Height and width of the images.
        output_size: Height and width of the restored images.

    Raises:
        SizeError: They would be too large.
        InputError: The operator is of no use.
    """
    height, width = output_size
    if height * width > MAX_PIXELS:
        less = "cut it into pieces" if output_size == size else "take a smaller factor"
        raise SizeError(
            f"The restored picture would have {width} x {height} px, more than {MAX_PIXELS:,} "
            f"in all; {less}."
        )
    if operator is not None and entry.operator == "size" and output_size == size:
        raise InputError(
            f"{entry.name} uses an operator only to learn the picture's size, as with "
            f"bicubic:factor=4, and {operator.describe()!r} does not change it; leave it out, "
            "or take a method that uses it."
        )


def takes_colour(operator: Operator | None) -> bool:
    """Return whether an operator removes the colour."""
    return operator is not None and any(isinstance(part, Grey) for part in operator.modules())


def known_sigma(entry: MethodEntry, settings: Any, form: Operator | None) -> float | None:
    """Return the level of the white noise at the end of the form, for methods that need it.

    Raises:
        InputError: The method needs it, and the form does not end with white noise, or has other
            noise too.
    """
    if not entry.oracle or getattr(settings, "sigma", "") == "estimated":
        return None
    sigma = None if form is None else white_noise_sigma(form)
    if sigma is None:
        raise InputError(
            f"{entry.name} needs the noise level: end the operator with it, once, "
            "as in 'blur:sigma=2 | noise:sigma=0.05'."
        )
    return sigma
