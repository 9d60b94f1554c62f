"""A blur that is undone in one call, and the kernel that is found in a picture."""

import sys

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from pristina.errors import InputError, OperatorError, SettingError
from pristina.methods.deblur import Deblur, blur_of, deblur
from pristina.methods.steps import kernel_from_picture as kernel_from_picture_module
from pristina.methods.steps import parts
from pristina.methods.steps.kernel_from_picture import (
    AGREEMENT_DB,
    FoundKernel,
    _kernel_between,
    _without_specks,
    estimate_kernel,
    kernel_from_picture,
    kernels_from_fields,
    similarity,
)
from pristina.methods.steps.result import StopReason
from pristina.operators.base import Compose, Observation
from pristina.operators.blur import FreeKernel, GaussianBlur, KernelBlur, VaryingBlur
from pristina.operators.convolve import convolve
from pristina.operators.kernels import motion_kernel
from pristina.operators.mask import Mask
from pristina.operators.noise import GaussianNoise, PoissonNoise
from pristina.priors.aware import AwareNetwork, AwarePrior, network_inputs
from pristina.priors.direct import DirectPrior
from pristina.priors.residual import ResidualUNet
from pristina.restoration import restore
from tests.contract.battery import check_method

SEED = 5
"""Seed of a long stroke that differs from its mirror image."""

SMALL = {"channels": [8, 16], "layers": 1, "inputs": network_inputs(3), "outputs": 3}


class Middle(AwarePrior):
    """Take the middle solution."""

    def regress(self, evidence, sigma):
        return evidence[:, 6:9]


class Mean(DirectPrior):
    """A denoiser that takes the mean over 3 x 3 pixels."""

    def regress(self, x_t, t):
        return torch.nn.functional.avg_pool2d(x_t, 3, 1, 1, count_include_pad=False)


def tiny():
    network = ResidualUNet(SMALL)
    for i, p in enumerate(network.parameters()):
        torch.nn.init.normal_(p, std=0.02, generator=torch.Generator().manual_seed(i))
    return AwareNetwork(network, domain="tests")


def pictures(n=2, height=24, width=30):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


def shaken(side=15, noise=0.004):
    """Return a clean photograph, what a shaking camera makes of it, and the kernel."""
    pixels = torch.from_numpy(astronaut().copy()).permute(2, 0, 1)[None, :, 60:420, 40:480] / 255
    kernel = motion_kernel(side, 0.5, torch.Generator().manual_seed(SEED))
    y = convolve(pixels, kernel, "valid")
    y = y + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    half = side // 2
    return pixels[..., half:-half, half:-half], y.clamp(0, 1), kernel


def psnr(a, b):
    return float(-10 * (a.clamp(0, 1) - b).square().mean().log10())


@pytest.mark.parametrize(
    "operator",
    [
        GaussianBlur(1.0, size=7),
        Compose([GaussianBlur(1.0, size=7, boundary="valid"), GaussianNoise(0.02)]),
        KernelBlur(motion_kernel(5, 0.5, torch.Generator().manual_seed(0)), "circular"),
    ],
)
def test_battery(operator):
    result = check_method(
        deblur, Observation(pictures(), operator), tiny(), Deblur(), calls=1, random=False
    )
    assert result.operator is not None and result.extras["sigma"].shape == (2,)


def test_battery_of_the_blind_form():
    check_method(
        deblur,
        Observation(pictures(2, 40, 48)),
        tiny(),
        Deblur(kernel_px=5),
        calls=None,
        random=False,
    )


def test_parts_and_their_seams(monkeypatch):
    """In parts the result is nearly that of the whole, also for a border that is not observed."""
    prior = Middle(domain="tests")
    _, y, kernel = shaken()
    y = y[..., :200, :300]
    for boundary in ("reflect", "valid", "circular"):
        observation = Observation(y, Compose([KernelBlur(kernel, boundary), GaussianNoise(0.03)]))
        whole = deblur(observation, prior)
        monkeypatch.setattr(parts, "TILE_PX", 110)
        monkeypatch.setattr(parts, "HALO_PX", 60)
        divided = deblur(observation, prior)
        monkeypatch.undo()
        assert divided.images.shape == whole.images.shape
        assert divided.cost.network_calls == whole.cost.network_calls == 1
        difference = (divided.images - whole.images).abs()
        assert 0 < difference.mean() < 0.02


def test_the_blur_that_is_told_is_undone():
    clean, y, kernel = shaken()
    prior = Middle(domain="tests")
    told = deblur(Observation(y, KernelBlur(kernel)), prior)
    assert psnr(told.images, clean) > psnr(y, clean) + 3
    other = deblur(Observation(y, KernelBlur(kernel.flip(-1))), prior)
    assert psnr(other.images, clean) < psnr(told.images, clean) - 3


def test_the_noise_level_is_that_of_the_operator_or_as_set():
    _, y, kernel = shaken(noise=0.02)
    noisy = Compose([KernelBlur(kernel), GaussianNoise(0.05)])
    prior = Middle(domain="tests")
    assert deblur(Observation(y, noisy), prior).extras["sigma"].item() == pytest.approx(0.05)
    set_ = deblur(Observation(y, noisy), prior, Deblur(sigma=0.03)).extras["sigma"].item()
    assert set_ == pytest.approx(0.03)
    estimated = deblur(Observation(y, KernelBlur(kernel)), prior).extras["sigma"].item()
    assert estimated == pytest.approx(0.02, rel=0.15)


def test_a_kernel_is_found_in_the_picture():
    _, y, kernel = shaken()
    found = kernel_from_picture(y, 21)
    assert found.kernel.sum().item() == pytest.approx(1) and found.kernel.min() >= 0
    wide = torch.nn.functional.pad(kernel, (3,) * 4)
    assert similarity(found.kernel, wide) > 0.85
    assert found.agreement > AGREEMENT_DB and not found.doubt
    # Without the check of its shape, another kernel would do.
    assert similarity(found.kernel, wide.flip(-1)) < 0.8


def test_a_sharp_picture_and_noise_are_left_alone():
    clean, _, _ = shaken()
    noise = torch.rand(1, 3, 120, 160, generator=torch.Generator().manual_seed(0))
    prior = Middle(domain="tests")
    for y, why in ((clean, "no blur"), (noise, "")):
        result = deblur(Observation(y), prior, Deblur(kernel_px=15))
        assert torch.equal(result.images, y.clamp(0, 1))
        assert result.stopped[0].reason is StopReason.LEFT_ALONE
        assert result.cost.network_calls == 0
        assert why in result.notes[0] and "left as it is" in result.notes[0]
    forced = deblur(Observation(clean), prior, Deblur(kernel_px=15, in_doubt="deblur"))
    assert forced.cost.network_calls == 1


def test_a_blur_that_differs_from_place_to_place_is_not_believed():
    """Each half is blurred by a stroke, the right one by its mirror image."""
    clean, _, kernel = shaken()
    clean = clean[..., :200, :]
    halves = [
        convolve(part, k, "reflect")
        for part, k in ((clean[..., :213], kernel), (clean[..., 213:], kernel.flip(-1)))
    ]
    result = deblur(
        Observation(torch.cat(halves, -1)), Middle(domain="tests"), Deblur(kernel_px=15)
    )
    assert result.stopped[0].reason is StopReason.LEFT_ALONE
    assert result.extras["agreement"].item() < AGREEMENT_DB
    assert "differs" in result.notes[0]


def test_in_doubt_the_network_is_called_once(monkeypatch):
    module = sys.modules["pristina.methods.steps.kernel_from_picture"]
    monkeypatch.setattr(module, "AGREEMENT_DB", 1e9)
    y = pictures(2, 40, 48)
    prior, mean = Middle(domain="tests"), Mean(domain="tests")
    settings = Deblur(kernel_px=5, in_doubt="regress")
    result = deblur(Observation(y), prior, settings, regressor=mean)
    assert torch.allclose(result.images, mean.predict(y, 1.0), atol=1e-6)
    assert result.cost.network_calls == 2 and "once instead" in result.notes[0]
    assert {stop.reason for stop in result.stopped} == {StopReason.COMPLETED}


def test_the_kernel_between_two_pictures_has_no_negative_value():
    kernel = motion_kernel(9, 0.5, torch.Generator().manual_seed(SEED))
    x = torch.rand(2, 1, 60, 70, generator=torch.Generator().manual_seed(0))
    found = _kernel_between(x, convolve(x, kernel, "circular"), torch.ones(1, 1, 60, 70), 13)
    assert found.min() == 0
    assert similarity(found, torch.nn.functional.pad(kernel, (2,) * 4)) > 0.99


def test_specks_are_removed_and_broken_strokes_are_not():
    kernel = torch.zeros(1, 1, 15, 15)
    kernel[..., 7, 4:8] = 0.1
    kernel[..., 7, 9:12] = 0.15  # Beyond one empty pixel.
    kernel[..., 1, 1] = 0.05
    cleaned = _without_specks(kernel)
    assert cleaned[..., 1, 1] == 0 and cleaned[..., 7, 9] == pytest.approx(0.15 / 0.85)
    kernel[..., 1, 1] = 0.2
    assert torch.allclose(_without_specks(kernel), kernel / kernel.sum())


def test_a_broad_kernel_that_a_window_shares_needs_less_agreement(monkeypatch):
    """Less than what any kernel needs is enough, but not for a narrow one."""
    module = sys.modules["pristina.methods.steps.kernel_from_picture"]
    kernels = {}

    def estimated_once(y, size):
        key = float(y.sum())
        if key not in kernels:
            kernels[key] = estimate_kernel(y, size)
        return kernels[key]

    monkeypatch.setattr(module, "estimate_kernel", estimated_once)
    _, y, _ = shaken()
    agreement = kernel_from_picture(y, 21).agreement
    monkeypatch.setattr(module, "AGREEMENT_DB", agreement + 1)
    assert not kernel_from_picture(y, 21).doubt
    monkeypatch.setattr(module, "BROAD_PX", 20.0)
    assert "differs" in kernel_from_picture(y, 21).doubt


def test_windows_share_a_kernel():
    _, y, kernel = shaken()
    luma = y.mean(1, keepdim=True)
    both = torch.cat([luma[..., :160, :200], luma[..., 150:310, 200:400]])
    assert similarity(estimate_kernel(both, 15), kernel) > 0.8


@pytest.mark.parametrize(
    ("operator", "sentence"),
    [
        (Mask(box=4), "deblur undoes one blur"),
        (Compose([GaussianBlur(1.0), Mask(box=4)]), "deblur undoes one blur"),
        (Compose([GaussianBlur(1.0), PoissonNoise(50)]), "deblur undoes one blur"),
        (VaryingBlur.drawn(5), "deblur undoes one blur"),
        (GaussianBlur(9.0, size=61), "up to 41 px"),
        (KernelBlur(torch.full((1, 1, 3, 3), 0.2)), "sum is not 1"),
    ],
)
def test_what_it_was_not_trained_for_is_refused(operator, sentence):
    with pytest.raises(OperatorError, match=sentence):
        blur_of(operator)


def test_other_refusals():
    prior = tiny()
    with pytest.raises(OperatorError, match="cannot be found"):
        deblur(Observation(pictures(1, 40, 300)), prior)
    with pytest.raises(OperatorError, match="of 43 px"):
        deblur(Observation(pictures(1, 200, 200), FreeKernel(43)), prior)
    with pytest.raises(InputError, match="channels"):
        deblur(Observation(pictures()[:, :1], GaussianBlur(1.0, size=7)), prior)
    with pytest.raises(InputError, match="has not been loaded"):
        deblur(Observation(pictures(1, 40, 48)), prior, Deblur(kernel_px=5, in_doubt="regress"))
    lone = {"in_doubt": "regress", "regressor": None}
    for wrong in ({"kernel_px": 20}, {"kernel_px": 3}, {"kernel_px": 99}, {"sigma": -1.0}, lone):
        with pytest.raises(SettingError):
            Deblur().changed(wrong)


def test_a_kernel_in_a_wide_frame_is_not_too_large():
    assert blur_of(GaussianBlur(1.0, size=81)) is not None
    assert np.isclose(float(blur_of(GaussianBlur(1.0, size=81)).kernel().sum().detach()), 1)


def test_restore_says_that_a_picture_was_left_alone():
    clean, _, _ = shaken()
    prior = Middle(domain="tests")
    done = restore(clean[0], method="deblur", prior=prior, settings={"kernel_px": 15})
    assert done.result.stopped[0].reason is StopReason.LEFT_ALONE
    assert any("left as it is" in note for note in done.notes)


def test_kernels_of_places_that_are_alike_are_one_kernel(monkeypatch):
    x = torch.rand(1, 3, 40, 70, generator=torch.Generator().manual_seed(1))
    kernel, sigma = motion_kernel(7, 0.5, torch.Generator().manual_seed(2)), torch.tensor([0.01])
    six, prior = kernel * torch.linspace(1, 1 + 1e-6, 6).view(1, 6, 1, 1), tiny()
    y = convolve(x, kernel)
    one, several = (
        parts.undo_blur(y, kernels, sigma, "reflect", prior, grid)
        for kernels, grid in ((kernel, (1, 1)), (six, (2, 3)))
    )
    assert prior.n_calls == 2
    assert torch.allclose(one, several, atol=1e-5)
    for name, px in (("TILE_PX", 24), ("HALO_PX", 12), ("FADE_PX", 4)):
        monkeypatch.setattr(parts, name, px)
    one, several = (
        parts.undo_blur(y, kernels, sigma, "reflect", prior, grid)
        for kernels, grid in ((kernel, (1, 1)), (six, (2, 3)))
    )
    assert torch.allclose(one, several, atol=1e-5)


def test_each_place_is_sharpened_with_its_own_kernel():
    x = torch.from_numpy(astronaut()).permute(2, 0, 1)[None, :, 40:168, 100:356] / 255
    one, other = torch.zeros(2, 1, 1, 9, 9)
    one[..., 4, :], other[..., :, 4] = 1 / 9, 1 / 9
    y = VaryingBlur(torch.stack([one[0], other[0]], 1))(x).detach()
    sigma = torch.tensor([0.02])

    def error(kernels, part):
        grid = (1, kernels.shape[1])
        image = parts.undo_blur(y, kernels, sigma, "reflect", Middle(domain="tests"), grid)
        return float((image - x)[..., part].square().mean())

    both = torch.cat([one, other], 1)
    left, right = slice(8, 24), slice(232, 248)
    assert error(both, left) < 0.75 * error(other, left)
    assert error(both, right) < 0.75 * error(one, right)


def test_a_field_in_doubt_takes_the_nearest_kernel_that_is_not(monkeypatch):
    seen = []

    def found(y, size):
        seen.append(tuple(y.shape[-2:]))
        doubt = "It is in doubt." if len(seen) in doubtful else ""
        return FoundKernel(torch.full((1, 1, size, size), float(len(seen))), 20.0, doubt)

    monkeypatch.setattr(kernel_from_picture_module, "kernel_from_picture", found)
    y, doubtful = torch.zeros(1, 3, 200, 400), {1, 5}
    kernels = kernels_from_fields(y, 15, (2, 3))
    assert kernels.kernel[0, :, 0, 0].tolist() == [2, 2, 3, 4, 2, 6]
    assert not kernels.doubt
    assert [width for _, width in seen] == [150, 299, 151] * 2
    seen.clear()
    doubtful = {1, 2, 3, 4, 6}
    assert "1 of 6" in kernels_from_fields(y, 15, (2, 3)).doubt


def test_fields_are_looked_for_where_one_kernel_is_in_doubt(monkeypatch):
    def found(y, size):
        sides.append(y.shape[-1])
        kernel = torch.zeros(1, 1, size, size)
        kernel[..., len(sides) + 2, :] = 1 / size
        return FoundKernel(kernel, 20.0, "It is in doubt." if y.shape[-1] in doubtful else "")

    for module in (kernel_from_picture_module, sys.modules[deblur.__module__]):
        monkeypatch.setattr(module, "kernel_from_picture", found)
    y, settings = torch.rand(1, 3, 60, 120), Deblur(kernel_px=9, fields=2)
    sides, doubtful = [], {120}
    result = deblur(Observation(y), Middle(domain="tests"), settings)
    assert sides == [120, 89, 90] and result.cost.network_calls == 1
    assert isinstance(result.operator, VaryingBlur)
    kernels = result.operator.kernels()[0]
    assert kernels.shape == (2, 9, 9) and not torch.allclose(kernels[0], kernels[1], atol=1e-3)

    sides, doubtful = [], set()
    result = deblur(Observation(y), Middle(domain="tests"), settings)
    one = deblur(Observation(y), Middle(domain="tests"), Deblur(kernel_px=9))
    assert sides == [120, 120] and result.images.shape == one.images.shape

    sides, doubtful = [], {120, 89, 90}
    result = deblur(Observation(y), Middle(domain="tests"), settings)
    assert result.stopped[0].reason is StopReason.LEFT_ALONE and "0 of 2 fields" in result.notes[0]


def test_fields_too_small_for_the_kernel_are_refused():
    y = torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    with pytest.raises(OperatorError, match="fields"):
        deblur(Observation(y), Middle(domain="tests"), Deblur(kernel_px=15, fields=8))
