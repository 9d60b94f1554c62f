"""Blur kernels: by formula, drawn at random, or measured and read from a file.

All kernels sum to 1 and have odd sides.
"""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import InputError, MissingExtra, SettingError
from pristina.operators.convolve import Kernels, centre, check_kernel_size, normalise
from pristina.operators.unknown import check_finite

__all__ = ["defocus_kernel", "gaussian_kernel", "line_kernel", "load_kernels", "motion_kernel"]

PEN_PX = 0.5
"""Standard deviation of the Gaussian pen that draws a path, px."""


def _axis(size: int, like: Tensor) -> Tensor:
    """Return pixel coordinates with the origin in the middle of ``size`` pixels."""
    return torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2


def check_sigma(sigma: float) -> None:
    """Raise :class:`SettingError` unless the standard deviation is finite and positive."""
    check_finite(sigma=sigma)
    if sigma <= 0:
        raise SettingError(f"sigma must be positive, not {sigma}.")


def check_gaussian_fits(size: int, sigma: float) -> None:
    """Raise :class:`SettingError` if a kernel of ``size`` px cuts off too much of a Gaussian."""
    if size < 2.5 * sigma:
        enough = 2 * math.ceil(3 * sigma) + 1
        raise SettingError(
            f"A Gaussian of sigma {sigma:g} px is cut off in a kernel of {size} px; "
            f"take size={enough}."
        )


def check_grid(rows: int, columns: int) -> None:
    """Raise :class:`SettingError` unless there is at least one kernel along each side."""
    if rows < 1 or columns < 1:
        raise SettingError(f"rows and columns must be at least 1, not {rows} and {columns}.")


def gaussian_kernel(
    size: int,
    sigma_x: Tensor | float,
    sigma_y: Tensor | float | None = None,
    angle: Tensor | float = 0.0,
) -> Float[Tensor, "n 1 {size} {size}"]:
    """Return Gaussian kernels; differentiable in widths and angle.

    Args:
        size: Side in pixels, odd.
        sigma_x: Standard deviation along the first axis, px; a number or (n,).
        sigma_y: Standard deviation along the second axis, px; that of the first if None.
        angle: Direction of the first axis, radians, from x (to the right) towards y (downwards).

    Returns:
        Kernels, (n, 1, size, size).

    Source:
        The normalised density at the pixel centres, as for most published kernels.
    """
    check_kernel_size(size)
    dtype = None if isinstance(sigma_x, Tensor) else torch.get_default_dtype()
    sigma_x = torch.as_tensor(sigma_x, dtype=dtype)
    if sigma_y is None:
        sigma_y = sigma_x
    sigma_y = torch.as_tensor(sigma_y, dtype=sigma_x.dtype, device=sigma_x.device)
    angle = torch.as_tensor(angle, dtype=sigma_x.dtype, device=sigma_x.device)
    x = _axis(size, sigma_x)
    across, down = x[None, None, :], x[None, :, None]
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    along, aside = cos * across + sin * down, cos * down - sin * across
    exponent = (along / sigma_x.view(-1, 1, 1)).square() + (aside / sigma_y.view(-1, 1, 1)).square()
    return (-exponent / 2).flatten(1).softmax(1).view(-1, 1, size, size)


def defocus_kernel(size: int, radius: Tensor | float) -> Float[Tensor, "n 1 {size} {size}"]:
    """Return discs with a soft rim one pixel wide; differentiable in the radius.

    Args:
        size: Side in pixels, odd.
        radius: Radius, px; a number or (n,).

    Returns:
        Kernels, (n, 1, size, size).
    """
    check_kernel_size(size)
    dtype = None if isinstance(radius, Tensor) else torch.get_default_dtype()
    radius = torch.as_tensor(radius, dtype=dtype)
    x = _axis(size, radius)
    distance = (x[:, None].square() + x[None].square()).sqrt()
    return normalise((radius.view(-1, 1, 1, 1) + 0.5 - distance).clamp(0, 1))


def path_kernel(size: int, points: Float[Tensor, "points 2"]) -> Float[Tensor, "1 1 {size} {size}"]:
    """Return the trace of a moving point of light, with subpixel accuracy.

    Args:
        size: Side in pixels, odd.
        points: Places (x, y) in pixels from the middle, (n, 2), each exposed equally long.
    """
    check_kernel_size(size)
    axis = _axis(size, points)
    pen_x = (-(axis[None] - points[:, :1]).square() / (2 * PEN_PX**2)).exp()
    pen_y = (-(axis[None] - points[:, 1:]).square() / (2 * PEN_PX**2)).exp()
    return normalise((pen_y.T @ pen_x)[None, None])


def line_kernel(size: int, length_px: float, angle: float) -> Float[Tensor, "1 1 {size} {size}"]:
    """Return a straight stroke of ``length_px`` at ``angle`` radians."""
    along = torch.linspace(-length_px / 2, length_px / 2, max(2, math.ceil(8 * length_px)))
    return path_kernel(size, torch.stack([along * math.cos(angle), along * math.sin(angle)], 1))


def motion_kernel(
    size: int, intensity: float, generator: torch.Generator
) -> Float[Tensor, "1 1 {size} {size}"]:
    """Draw the trace of a shaking camera: centred, not negative, of sum 1.

    Args:
        size: Side in pixels, odd. Below 5 px every seed gives the same blob, because there is no
            room for a path.
        intensity: Number from 0, a nearly straight stroke, to 1, long and erratic.
        generator: Source of all randomness.

    Returns:
        Kernel, (1, 1, size, size).

    Raises:
        SettingError: The size is even, or the intensity outside [0, 1].

    Source:
        The distributions of length, step and turn are those of the LeviBorodenko/motionblur
        generator, after a description of it: a path of many short straight steps whose heading
        drifts and is mirrored now and then. Differences: the path is drawn with a Gaussian pen
        directly at the final size; it is shrunk if it would not fit; and the centre of mass is in
        the middle.

    Example:
        >>> k = motion_kernel(21, 0.5, torch.Generator().manual_seed(0))
        >>> tuple(k.shape), round(float(k.sum()), 4)
        ((1, 1, 21, 21), 1.0)
    """
    check_kernel_size(size)
    if not 0 <= intensity <= 1:
        raise SettingError(f"intensity must lie between 0 and 1, not {intensity}.")
    corners = _shaky_path(math.sqrt(2) * size, intensity, generator)
    points = _along(corners)
    points = points - points.mean(0)
    turn = math.pi * _uniform(generator)
    rotation = [[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]
    points = points @ torch.tensor(rotation, dtype=torch.float64)
    room, reach = max(0.0, (size - 1) / 2 - 1), float(points.abs().max())
    if reach > room:
        points = points * (room / reach)
    return path_kernel(size, points).float()


def _shaky_path(diagonal: float, intensity: float, generator: torch.Generator) -> Tensor:
    """Draw the corners of a random path in a square with this diagonal, px, (n, 2)."""
    slack = 0.1
    longest = 0.75 * diagonal * (_uniform(generator) + intensity**2 * _uniform(generator))
    widest = intensity * math.pi * _uniform(generator)  # of the first heading
    # The second smallest of 21 uniform numbers is Beta(2, 20), the smallest of 30 Beta(1, 30).
    p_turn = float(torch.rand(21, generator=generator, dtype=torch.float64).sort().values[1])

    headings: list[float] = []
    lengths: list[float] = []
    heading, done = widest * (2 * _uniform(generator) - 1), 0.0
    while done < longest and len(lengths) < 1000:
        step = 1 - (1 - _uniform(generator)) ** (1 / 30)
        length = step * (1 - intensity + slack) * diagonal
        if length < longest:
            lengths.append(length)
            headings.append(heading)
            done += length
        sign = math.copysign(1, heading) * (-1 if _uniform(generator) < p_turn else 1)
        heading = sign * _triangular(_uniform(generator), intensity * widest, widest + slack)
    steps = torch.tensor(
        [[n * math.cos(a), n * math.sin(a)] for n, a in zip(lengths, headings, strict=True)],
        dtype=torch.float64,
    )
    start = torch.zeros(1, 2, dtype=torch.float64)
    return torch.cat([start, steps.reshape(-1, 2).cumsum(0)])


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, dtype=torch.float64))


def _triangular(u: float, mode: float, high: float) -> float:
    """Return the ``u``-quantile of the triangular distribution on [0, high] peaking at ``mode``."""
    if u * high < mode:
        return math.sqrt(u * high * mode)
    return high - math.sqrt((1 - u) * high * (high - mode))


def _along(corners: Tensor, spacing_px: float = 0.1) -> Tensor:
    """Return points at equal distances along a polyline (n, 2)."""
    travelled = F.pad((corners[1:] - corners[:-1]).norm(dim=1).cumsum(0), (1, 0))
    length = float(travelled[-1])
    if length == 0:
        return corners[:1]
    at = torch.linspace(0, length, math.ceil(length / spacing_px) + 1, dtype=corners.dtype)
    after = torch.searchsorted(travelled, at).clamp(1, len(corners) - 1)
    step = (travelled[after] - travelled[after - 1]).clamp_min(1e-12)
    share = ((at - travelled[after - 1]) / step)[:, None]
    return corners[after - 1] * (1 - share) + corners[after] * share


def blending_weights(length: int, n: int, like: Tensor) -> Float[Tensor, "{n} {length}"]:
    """Return ``n`` overlapping triangles over ``length`` pixels that sum to 1 everywhere."""
    places = torch.linspace(0, n - 1, length, dtype=like.dtype, device=like.device)
    peaks = torch.arange(n, dtype=like.dtype, device=like.device)[:, None]
    return (1 - (places - peaks).abs()).clamp_min(0)


def spread(kernel: Kernels) -> Float[Tensor, " kernels"]:
    """Return the root-mean-square distance of each kernel from its centre of mass, per axis, px."""
    weight = kernel.detach() / kernel.detach().sum((-2, -1), keepdim=True)
    axis = torch.arange(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
    variance = torch.zeros(len(kernel), dtype=kernel.dtype, device=kernel.device)
    for profile in (weight.sum((1, 2)), weight.sum((1, 3))):
        mean = (profile * axis).sum(1, keepdim=True)
        variance = variance + (profile * (axis - mean).square()).sum(1) / 2
    return variance.clamp_min(0).sqrt()


@torch.no_grad()
def tilt_to_centre(logits: Tensor, size: int, middle: float = 0.0) -> None:
    """Move the centre of mass of softmax kernels to the middle, in place, by one Newton step.

    A blurred image does not distinguish a shift of the kernel from the opposite shift of the
    image. Of all centred kernels, the nearest in relative entropy is the kernel tilted by an
    exponential, ``k exp(a . x)``, x in px, so that only ``a`` must be found. The step is damped
    where the mass is hardly spread at all. A kernel that is off by more than half of its spread
    would lose its shape, and the step might not converge: it is first moved by whole pixels.

    Args:
        logits: Logits of the kernels, (..., size * size).
        size: Side of the kernels, px.
        middle: Distance of the wanted centre from the middle pixel, downwards and to the right, px.
    """
    axis = torch.arange(size, dtype=logits.dtype, device=logits.device) - size // 2 - middle
    x = torch.stack([axis.repeat_interleave(size), axis.repeat(size)], 1)  # (K * K, 2)
    mean, step = _newton(logits, x)
    # Square of the offset in units of the spread.
    far = (mean * step).sum(-1, keepdim=True) > 0.25
    if far.any():
        down, across = (mean.round() * far).long()[..., None].unbind(-2)
        place = torch.arange(size * size, device=logits.device)
        source = (place // size + down) % size * size + (place + across) % size
        logits.copy_(logits.gather(-1, source))
        step = _newton(logits, x)[1]
    logits -= step @ x.T


def _newton(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the centres of mass of softmax kernels and the tilts that bring them to 0.

    Args:
        logits: Logits of the kernels, (..., K * K).
        x: Places of their pixels, (K * K, 2).

    Returns:
        Centres and tilts, both (..., 2).
    """
    weight = logits.softmax(-1)
    mean = weight @ x
    second = (weight[..., None, None] * x[:, :, None] * x[:, None, :]).sum(-3)
    covariance = second - mean[..., None] * mean[..., None, :]
    damped = covariance + 0.1 * torch.eye(2, dtype=x.dtype, device=x.device)
    return mean, torch.linalg.solve(damped, mean)


def load_kernels(path: str | Path) -> list[Tensor]:
    """Read measured kernels from a MATLAB file such as ``Levin09.mat``.

    Every two-dimensional array in the file that could be a kernel (not negative, 3 to 129 px a
    side), alone or in a cell array, is taken. Sides are padded with zeros to the next odd number.

    Args:
        path: MATLAB file of any version.

    Returns:
        Kernels, each (1, 1, K, K): odd, centred, of sum 1.

    Raises:
        InputError: There is no such file, it is damaged, or there is no kernel in it.
        MissingExtra: The package that reads this kind of file is not installed: h5py for
            MATLAB 7.3 files, scipy for older ones.
    """
    path = Path(path)
    try:
        head = path.read_bytes()[:128]
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; give the path of a MATLAB file of kernels."
        ) from error
    try:
        arrays = _read_hdf5(path) if b"MATLAB 7.3" in head else _read_mat(path)
    except MissingExtra:
        raise
    except Exception as error:  # the readers raise many kinds at damaged files
        raise InputError(
            f"{path} is damaged, or no MATLAB file of kernels; get it anew."
        ) from error
    kernels = [_as_kernel(array) for array in arrays if _may_be_kernel(array)]
    if not kernels:
        raise InputError(
            f"{path} holds no kernel: no array of 3 to 129 px a side without negative numbers."
        )
    return kernels


def _may_be_kernel(array: Tensor) -> bool:
    if array.ndim != 2 or min(array.shape) < 3 or max(array.shape) > 129:
        return False
    return bool(array.min() >= 0 and array.sum() > 0)


def _as_kernel(array: Tensor) -> Tensor:
    side = max(array.shape) + 1 - max(array.shape) % 2
    y, x = side - array.shape[0], side - array.shape[1]
    kernel = F.pad(array, (x // 2, x - x // 2, y // 2, y - y // 2))[None, None]
    return centre(normalise(kernel))[0].float()


def _read_mat(path: Path) -> list[Tensor]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingExtra(
            f"Reading {path.name} needs scipy: pip install 'pristina[bench]'."
        ) from error
    found: list[Tensor] = []
    for name, value in loadmat(path).items():
        if not name.startswith("__"):
            items = value.ravel() if value.dtype == object else [value]
            found += [
                torch.as_tensor(item, dtype=torch.float64)
                for item in items
                if item.dtype.kind in "fiu"
            ]
    return found


def _read_hdf5(path: Path) -> list[Tensor]:
    try:
        h5py = import_module("h5py")
    except ImportError as error:
        raise MissingExtra(
            f"{path.name} is a MATLAB 7.3 file; reading it needs h5py: pip install h5py."
        ) from error
    found: list[Tensor] = []

    def take(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
            # MATLAB stores columns first.
            found.append(torch.as_tensor(item[()].T, dtype=torch.float64))

    with h5py.File(path, "r") as file:
        file.visititems(take)
    return found


def drawing(kernel: Float[Tensor, "1 k k"], least_px: int) -> Float[Tensor, "1 h w"]:
    """Draw how one point is smeared, in [0, 1]: white where most of its light goes.

    Args:
        kernel: A kernel.
        least_px: Side of which the drawing has more than half, its pixels being squares.
    """
    kernel = kernel.detach().cpu()
    scale = max(1, least_px // kernel.shape[-1])
    large = kernel.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    return large / large.max().clamp(min=1e-9)
