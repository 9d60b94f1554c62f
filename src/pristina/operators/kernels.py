"""Blur kernels: by formula, drawn at random, or measured and read from a file. All sum to 1 and have odd sides."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import InputError, MissingExtra, SettingError
from pristina.operators.convolve import centre, check_kernel_size, normalise

PEN_PX = 0.5  # standard deviation of the point that draws a path


def _axis(size: int, like: Tensor) -> Tensor:
    """Pixel coordinates with the origin in the middle of ``size`` pixels."""
    return torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2


def gaussian_kernel(size: int, sigma_x: Tensor | float, sigma_y: Tensor | float | None = None, angle: Tensor | float = 0.0) -> Tensor:
    """Gaussian kernels, (n, 1, size, size), differentiable in all three numbers.

    Args:
        size: Side in pixels, odd.
        sigma_x: Standard deviation along the first axis, px; a number or (n,).
        sigma_y: Along the second; the same if None.
        angle: Of the first axis, radians, from x (to the right) towards y (downwards).

    Source:
        The density at the pixel centres, normalised: what most published kernels are.
    """
    check_kernel_size(size)
    sigma_x = torch.as_tensor(sigma_x, dtype=torch.get_default_dtype() if not isinstance(sigma_x, Tensor) else None)
    sigma_y = sigma_x if sigma_y is None else torch.as_tensor(sigma_y, dtype=sigma_x.dtype, device=sigma_x.device)
    angle = torch.as_tensor(angle, dtype=sigma_x.dtype, device=sigma_x.device)
    x = _axis(size, sigma_x)
    across, down = x[None, None, :], x[None, :, None]
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    along, aside = cos * across + sin * down, cos * down - sin * across
    exponent = (along / sigma_x.view(-1, 1, 1)).square() + (aside / sigma_y.view(-1, 1, 1)).square()
    return (-exponent / 2).flatten(1).softmax(1).view(-1, 1, size, size)


def defocus_kernel(size: int, radius: Tensor | float) -> Tensor:
    """Discs with a soft rim one pixel wide, (n, 1, size, size), differentiable in the radius (px; a number or (n,))."""
    check_kernel_size(size)
    radius = torch.as_tensor(radius, dtype=torch.get_default_dtype() if not isinstance(radius, Tensor) else None)
    x = _axis(size, radius)
    distance = (x[:, None].square() + x[None].square()).sqrt()
    return normalise((radius.view(-1, 1, 1, 1) + 0.5 - distance).clamp(0, 1))


def path_kernel(size: int, points: Tensor) -> Tensor:
    """What a moving point of light draws, (1, 1, size, size), with subpixel accuracy.

    Args:
        points: Places in pixels from the middle, (n, 2), (x, y), each held equally long.
    """
    check_kernel_size(size)
    axis = _axis(size, points)
    pen_x = (-(axis[None] - points[:, :1]).square() / (2 * PEN_PX**2)).exp()
    pen_y = (-(axis[None] - points[:, 1:]).square() / (2 * PEN_PX**2)).exp()
    return normalise((pen_y.T @ pen_x)[None, None])


def line_kernel(size: int, length_px: float, angle: float) -> Tensor:
    """A straight stroke of ``length_px`` at ``angle`` radians, (1, 1, size, size)."""
    along = torch.linspace(-length_px / 2, length_px / 2, max(2, math.ceil(8 * length_px)))
    return path_kernel(size, torch.stack([along * math.cos(angle), along * math.sin(angle)], 1))


def motion_kernel(size: int, intensity: float, generator: torch.Generator) -> Tensor:
    """The trace of a shaking camera, (1, 1, size, size): centred, not negative, of sum 1.

    Args:
        size: Side in pixels, odd. Below 5 there is no room for a path, and every seed gives the same blob.
        intensity: From 0, a nearly straight stroke, to 1, long and erratic.
        generator: All randomness comes from here.

    Raises:
        SettingError: An even size, or an intensity outside [0, 1].

    Source:
        The laws of length, step and turn are those of the LeviBorodenko/motionblur generator, from a description of it: a path of
        many short straight steps whose heading drifts, and is mirrored now and then. Different here: the path is drawn with a Gaussian pen
        directly at the final size; it is shrunk if it would not fit; and the centre of mass is in the middle.

    Example:
        >>> k = motion_kernel(21, 0.5, torch.Generator().manual_seed(0))
        >>> tuple(k.shape), round(float(k.sum()), 4)
        ((1, 1, 21, 21), 1.0)
    """
    check_kernel_size(size)
    if not 0 <= intensity <= 1:
        raise SettingError(f"intensity must lie between 0 and 1, not {intensity}.")

    def uniform() -> float:
        return float(torch.rand((), generator=generator, dtype=torch.float64))

    diagonal, slack = math.sqrt(2) * size, 0.1
    longest = 0.75 * diagonal * (uniform() + intensity**2 * uniform())
    widest = intensity * math.pi * uniform()  # of the first heading
    # the second smallest of 21 uniform numbers is Beta(2, 20), the smallest of 30 is Beta(1, 30)
    p_turn = float(torch.rand(21, generator=generator, dtype=torch.float64).sort().values[1])

    headings: list[float] = []
    lengths: list[float] = []
    heading, done = widest * (2 * uniform() - 1), 0.0
    while done < longest and len(lengths) < 1000:
        length = (1 - (1 - uniform()) ** (1 / 30)) * (1 - intensity + slack) * diagonal
        if length < longest:
            lengths.append(length)
            headings.append(heading)
            done += length
        sign = math.copysign(1, heading) * (-1 if uniform() < p_turn else 1)
        heading = sign * _triangular(uniform(), intensity * widest, widest + slack)
    steps = torch.tensor([[n * math.cos(a), n * math.sin(a)] for n, a in zip(lengths, headings, strict=True)], dtype=torch.float64)
    corners = torch.cat([torch.zeros(1, 2, dtype=torch.float64), steps.reshape(-1, 2).cumsum(0)])

    points = _along(corners)
    points = points - points.mean(0)
    turn = math.pi * uniform()
    points = points @ torch.tensor([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]], dtype=torch.float64)
    room, reach = max(0.0, (size - 1) / 2 - 1), float(points.abs().max())
    if reach > room:
        points = points * (room / reach)
    return path_kernel(size, points).float()


def _triangular(u: float, mode: float, high: float) -> float:
    """The ``u``-quantile of the triangular law on [0, high] with its peak at ``mode``."""
    if u * high < mode:
        return math.sqrt(u * high * mode)
    return high - math.sqrt((1 - u) * high * (high - mode))


def _along(corners: Tensor, spacing_px: float = 0.1) -> Tensor:
    """Points at equal distances along a polyline (n, 2)."""
    travelled = F.pad((corners[1:] - corners[:-1]).norm(dim=1).cumsum(0), (1, 0))
    length = float(travelled[-1])
    if length == 0:
        return corners[:1]
    at = torch.linspace(0, length, math.ceil(length / spacing_px) + 1, dtype=corners.dtype)
    after = torch.searchsorted(travelled, at).clamp(1, len(corners) - 1)
    step = (travelled[after] - travelled[after - 1]).clamp_min(1e-12)
    share = ((at - travelled[after - 1]) / step)[:, None]
    return corners[after - 1] * (1 - share) + corners[after] * share


def load_kernels(path: str | Path) -> list[Tensor]:
    """Measured kernels from a MATLAB file such as ``Levin09.mat``, each (1, 1, K, K): odd, centred, of sum 1.

    Every two-dimensional array in the file that could be a kernel (not negative, 3 to 129 px a side), alone or in a cell array, is taken.
    Sides are brought to the next odd number with zeros.

    Raises:
        InputError: There is no such file, it is damaged, or there is no kernel in it.
        MissingExtra: The package that reads this kind of file is not installed: h5py for MATLAB 7.3 files, scipy for older ones.
    """
    path = Path(path)
    try:
        head = path.read_bytes()[:128]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give the path of a MATLAB file of kernels.") from error
    try:
        arrays = _read_hdf5(path) if b"MATLAB 7.3" in head else _read_mat(path)
    except MissingExtra:
        raise
    except Exception as error:  # what the readers raise at damaged files is of many kinds
        raise InputError(f"{path} is damaged, or no MATLAB file of kernels; get it anew.") from error
    kernels = [_as_kernel(a) for a in arrays if a.ndim == 2 and min(a.shape) >= 3 and max(a.shape) <= 129 and a.min() >= 0 and a.sum() > 0]
    if not kernels:
        raise InputError(f"{path} holds no kernel: no array of 3 to 129 px a side without negative numbers.")
    return kernels


def _as_kernel(array: Tensor) -> Tensor:
    side = max(array.shape) + 1 - max(array.shape) % 2
    missing_y, missing_x = side - array.shape[0], side - array.shape[1]
    kernel = F.pad(array, (missing_x // 2, missing_x - missing_x // 2, missing_y // 2, missing_y - missing_y // 2))[None, None]
    return centre(normalise(kernel))[0].float()


def _read_mat(path: Path) -> list[Tensor]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingExtra(f"Reading {path.name} needs scipy: pip install 'pristina[bench]'.") from error
    found: list[Tensor] = []
    for name, value in loadmat(path).items():
        if not name.startswith("__"):
            items = value.ravel() if value.dtype == object else [value]
            found += [torch.as_tensor(item, dtype=torch.float64) for item in items if item.dtype.kind in "fiu"]
    return found


def _read_hdf5(path: Path) -> list[Tensor]:
    try:
        h5py = import_module("h5py")
    except ImportError as error:
        raise MissingExtra(f"{path.name} is a MATLAB 7.3 file; reading it needs h5py: pip install h5py.") from error
    found: list[Tensor] = []

    def take(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
            found.append(torch.as_tensor(item[()].T, dtype=torch.float64))  # MATLAB stores columns first

    with h5py.File(path, "r") as file:
        file.visititems(take)
    return found
