"""Metrics of fidelity to clean images: PSNR, SSIM, HaarPSI and GMSD.

Every metric takes two batches, (B, C, H, W) in [0, 1], and returns one number for each image, (B,).
None needs a downloaded network.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pristina.errors import InputError, SizeError
from pristina.types import PerImage

MAX_SHIFT_PX = 8
"""Largest shift that :func:`psnr_after_shift` tries by default, in pixels."""

_LUMA = (0.299, 0.587, 0.114)
_YIQ = (_LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def psnr(restored: Tensor, truth: Tensor) -> PerImage:
    """Compute the peak signal-to-noise ratio over all pixels and channels.

    Args:
        restored: Restored images, (B, C, H, W), in [0, 1].
        truth: Clean images of the same shape.

    Returns:
        Ratio of each image for the peak 1, in dB, (B,); 100 dB for equal images.

    Raises:
        InputError: The shapes differ, or there are not 1 or 3 channels.

    Example:
        >>> import torch
        >>> round(float(psnr(torch.full((1, 3, 8, 8), 0.6), torch.full((1, 3, 8, 8), 0.5))), 3)
        20.0
    """
    _check(restored, truth)
    return -10 * (restored - truth).square().mean((1, 2, 3)).clamp(min=1e-10).log10()


def psnr_after_shift(restored: Tensor, truth: Tensor, max_shift: int = MAX_SHIFT_PX) -> PerImage:
    """Compute the best PSNR over whole-pixel shifts of the clean images.

    Blind deblurring cannot distinguish a shift of the image from the opposite shift of the
    kernel, so this is the fair number for it. It never stands in for :func:`psnr`. A border of
    ``max_shift`` pixels is left out, so that every shift is compared on the same pixels of
    ``restored``.

    Args:
        restored: Restored images, (B, C, H, W), in [0, 1].
        truth: Clean images of the same shape.
        max_shift: Largest shift in each of the four directions, in pixels.

    Returns:
        Best ratio of each image, in dB, (B,).

    Raises:
        InputError: The shapes differ, or there are not 1 or 3 channels.
        SizeError: Nothing is left inside the border.
    """
    _check(restored, truth)
    height, width = restored.shape[-2] - 2 * max_shift, restored.shape[-1] - 2 * max_shift
    if min(height, width) < 1:
        raise SizeError(
            f"Shifts of {max_shift} px need pictures of more than {2 * max_shift} px a side, "
            f"not {truth.shape[-1]} x {truth.shape[-2]}."
        )
    inner = restored[..., max_shift : max_shift + height, max_shift : max_shift + width]
    shifts = [(i, j) for i in range(2 * max_shift + 1) for j in range(2 * max_shift + 1)]
    return torch.stack(
        [psnr(inner, truth[..., i : i + height, j : j + width]) for i, j in shifts]
    ).amax(0)


def ssim(restored: Tensor, truth: Tensor) -> PerImage:
    """Compute the structural similarity.

    The convention is: RGB, mean over channels; data range 1; Gaussian window of 11 x 11 px and
    standard deviation 1.5 px, whole windows only; population covariance; K1 = 0.01, K2 = 0.03.

    Args:
        restored: Restored images, (B, C, H, W), in [0, 1].
        truth: Clean images of the same shape.

    Returns:
        Similarity of each image, (B,); 1 for equal images.

    Raises:
        InputError: The shapes differ, or there are not 1 or 3 channels.
        SizeError: A side is shorter than 11 px.

    Source:
        Wang, Bovik, Sheikh and Simoncelli 2004, equation 13, on each channel instead of on
        luminance. The values are those of scikit-image with ``gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, data_range=1``. torchmetrics agrees inside the image, but
        also averages over windows that reach beyond its border into a reflection, which changes
        the mean of small images by up to 0.06.
    """
    _check(restored, truth)
    if min(truth.shape[-2:]) < 11:
        raise SizeError(
            "SSIM needs windows of 11 x 11 px; "
            f"a picture of {truth.shape[-1]} x {truth.shape[-2]} px is too small."
        )
    x, y = restored.double(), truth.double()
    place = torch.arange(-5, 6, dtype=x.dtype, device=x.device)
    window = torch.exp(-place.square() / (2 * 1.5**2))
    window = window / window.sum()

    def mean(v: Tensor) -> Tensor:
        flat = v.flatten(0, 1).unsqueeze(1)
        return F.conv2d(F.conv2d(flat, window.view(1, 1, 11, 1)), window.view(1, 1, 1, 11)).view(
            *v.shape[:2], -1
        )

    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y, cov = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2, mean(x * y) - mu_x * mu_y
    c1, c2 = 0.01**2, 0.03**2
    above = (2 * mu_x * mu_y + c1) * (2 * cov + c2)
    similarity = above / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))
    return similarity.mean((1, 2)).float()


def haarpsi(restored: Tensor, truth: Tensor, *, c: float = 30.0, alpha: float = 4.2) -> PerImage:
    """Compute the Haar wavelet perceptual similarity.

    Args:
        restored: Restored images, (B, C, H, W), in [0, 1]; three channels are compared in YIQ,
            one as luminance.
        truth: Clean images of the same shape.
        c: Contrast constant, for pixels in 0 to 255.
        alpha: Slope of the logistic function.

    Returns:
        Similarity of each image, (B,), in (0, 1]; 1 for equal images.

    Raises:
        InputError: The shapes differ, or there are not 1 or 3 channels.

    Source:
        Reisenhofer, Bosse, Kutyniok and Wiegand 2018: similarity of the absolute Haar
        coefficients of the two finest scales, through a logistic function, weighted with the
        coarsest. As in the authors' own program, with which the values agree to 1e-7, images are
        first halved by 2 x 2 averages, and filtered with zeros outside.
    """
    _check(restored, truth)
    x, y = (_halved(255 * _opponent(v.double())) for v in (restored, truth))
    similarities, weights = [], []
    for upright in (False, True):
        coefficients = [
            (_haar(x[:, :1], j, upright).abs(), _haar(y[:, :1], j, upright).abs())
            for j in (1, 2, 3)
        ]
        similarities.append(torch.stack([_similar(a, b, c) for a, b in coefficients[:2]]).mean(0))
        weights.append(torch.maximum(*coefficients[2]))
    if x.shape[1] == 3:
        a, b = (_same(v[:, 1:], v.new_full((2, 2), 0.25)).abs() for v in (x, y))
        similarities.append(_similar(a, b, c).mean(1, keepdim=True))
        weights.append(torch.stack(weights).mean(0))
    similarity, weight = torch.cat(similarities, 1).flatten(1), torch.cat(weights, 1).flatten(1)
    total = weight.sum(1)
    # A pair of flat images has no coefficient to weight with: all places count the same.
    weight = torch.where(total.view(-1, 1) > 0, weight, torch.ones_like(weight))
    pooled = ((alpha * similarity).sigmoid() * weight).sum(1) / weight.sum(1)
    return (pooled.logit() / alpha).square().float()


def gmsd(restored: Tensor, truth: Tensor, *, c: float = 170.0) -> PerImage:
    """Compute the gradient magnitude similarity deviation.

    Args:
        restored: Restored images, (B, C, H, W), in [0, 1]; colour is reduced to luma.
        truth: Clean images of the same shape.
        c: Stabilising constant, for pixels in 0 to 255.

    Returns:
        Deviation of each image, (B,); 0 for equal images, and smaller is better.

    Raises:
        InputError: The shapes differ, or there are not 1 or 3 channels.

    Source:
        Xue, Zhang, Mou and Bovik 2014, equations 1 to 6: Prewitt gradients of images halved by
        2 x 2 averages; zeros outside and the sample standard deviation, as in the authors' own
        program.
    """
    _check(restored, truth)
    x, y = (_halved(255 * _opponent(v.double())[:, :1]) for v in (restored, truth))
    kernel = x.new_tensor([[1, 0, -1]] * 3) / 3

    def magnitude(v: Tensor) -> Tensor:
        return (_same(v, kernel).square() + _same(v, kernel.T).square()).sqrt()

    return _similar(magnitude(x), magnitude(y), c).flatten(1).std(1).float()


def _check(restored: Tensor, truth: Tensor) -> None:
    if restored.ndim != 4 or restored.shape[:2] != truth.shape[:2]:
        raise InputError(
            "Two batches (B, C, H, W) are compared, of as many pictures; "
            f"not {tuple(restored.shape)} and {tuple(truth.shape)}."
        )
    if restored.shape != truth.shape:
        (height, width), (true_height, true_width) = restored.shape[-2:], truth.shape[-2:]
        raise InputError(
            "A picture is compared with another of its size: "
            f"{width} x {height} px does not go with {true_width} x {true_height} px."
        )
    if restored.shape[1] not in (1, 3):
        raise InputError(f"Pictures have 3 channels, or 1 for grey; not {restored.shape[1]}.")


def _opponent(x: Tensor) -> Tensor:
    """Convert to luma, or to luma and two differences of colour."""
    return x if x.shape[1] == 1 else torch.einsum("dc,bchw->bdhw", x.new_tensor(_YIQ), x)


def _halved(x: Tensor) -> Tensor:
    """Average 2 x 2 pixels; an odd last row or column is padded with zeros."""
    return F.avg_pool2d(F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2)), 2)


def _same(x: Tensor, kernel: Tensor) -> Tensor:
    """Correlate with zeros outside; an even kernel reaches further to the right and below."""
    height, width = kernel.shape
    x = F.pad(x, ((width - 1) // 2, width // 2, (height - 1) // 2, height // 2))
    return F.conv2d(x, kernel.expand(x.shape[1], 1, -1, -1), groups=x.shape[1])


def _haar(x: Tensor, scale: int, upright: bool) -> Tensor:
    """Return the coefficients of the Haar filter of side ``2 ** scale``, (B, 1, H, W)."""
    side = 2**scale
    sign = torch.ones(side, dtype=x.dtype, device=x.device)
    sign[: side // 2] = -1
    kernel = sign.view(-1, 1).expand(side, side) / side
    return _same(x, kernel.T if upright else kernel)


def _similar(a: Tensor, b: Tensor, c: float) -> Tensor:
    return (2 * a * b + c) / (a.square() + b.square() + c)
