"""Trainings of the regressor that is told the operator, and the cases that it learns from."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from pristina.cli import main
from pristina.errors import CheckpointError, SettingError
from pristina.operators.kernels import gaussian_kernel
from pristina.priors.aware import reconstructed, stack_evidence
from pristina.priors.checkpoints.format import read_tensors, save_weights
from pristina.priors.direct import regress
from pristina.priors.load import kind_of, load_weights
from pristina.priors.residual import ResidualUNet
from pristina.training.data import list_pictures
from pristina.training.operator import (
    CaseStream,
    OperatorTask,
    OperatorTraining,
    held_out_cases,
    start_from_regressor,
    train_operator,
)
from pristina.training.operator_cases import (
    CHANNELS,
    LARGEST_PX,
    blurred_case,
    disturbed,
    draw_blur,
    draw_case,
    draw_mask,
    draw_sigma,
    split_cases,
)

from .common import save, short, smooth

SMALL = OperatorTraining(size_px=16, channels=(8, 16), layers=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        save(smooth(i, 140), folder / f"{i}.png")
    return folder


def crop(side):
    pixels = astronaut()[60 : 60 + side, 170 : 170 + side].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255


def centre_of(kernel):
    axis = torch.arange(kernel.shape[-1]) - kernel.shape[-1] // 2
    return (kernel.sum((0, 1, 2)) * axis).sum(), (kernel.sum((0, 1, 3)) * axis).sum()


def test_kernels_are_kernels_and_wrong_ones_differ_a_little():
    differences = []
    for seed in range(40):
        kernel = draw_blur(np.random.default_rng(seed))
        side = kernel.shape[-1]
        assert kernel.shape == (1, 1, side, side) and side % 2 == 1 and side <= LARGEST_PX
        assert kernel.min() >= 0 and float(kernel.sum()) == pytest.approx(1, abs=1e-5)
        wrong = disturbed(kernel, 0.5, np.random.default_rng(seed))
        assert wrong.min() >= 0 and float(wrong.sum()) == pytest.approx(1, abs=1e-5)
        wide = torch.nn.functional.pad(kernel, (2,) * 4)
        moved = [abs(a - b) for a, b in zip(centre_of(wide), centre_of(wrong), strict=True)]
        assert max(moved) < 0.3
        differences.append(float((wrong - wide).abs().sum() / 2))
    assert 0.05 < np.median(differences) < 0.5


def test_noise_is_mostly_light():
    random = np.random.default_rng(0)
    levels = np.array([draw_sigma(random) for _ in range(2000)])
    assert levels.min() == 0 and 40 / 255 < levels.max() <= 50 / 255
    assert 0.6 < (levels < 5 / 255).mean() < 0.9


def test_masks_lose_something_and_keep_something():
    masks = [draw_mask(48, np.random.default_rng(i)) for i in range(30)]
    lost = [1 - float(mask.mask(48, 48).mean()) for mask in masks]
    assert min(lost) > 0 and max(lost) < 0.95 and np.std(lost) > 0.1


def test_what_the_network_is_told():
    """The middle solution lies nearer to the truth than the observation does."""
    x, kernel = crop(72 + LARGEST_PX - 1), gaussian_kernel(13, 2.0)
    sigmas = (0.001, 0.002)
    case = blurred_case(x, 72, (kernel, kernel), sigmas, np.random.default_rng(0))
    clean, told, sigma = split_cases(case[None])
    assert torch.equal(clean[0], x[:, 18:-18, 18:-18]) and float(sigma) == pytest.approx(0.002)
    error = (told[0, :12].unflatten(0, (4, 3)) - clean).square().mean((1, 2, 3))
    assert error[2] < 0.6 * error[0]


def test_a_wrong_kernel_is_told_and_not_used():
    x, kernel = crop(48 + LARGEST_PX - 1), gaussian_kernel(9, 1.5)
    wrong = disturbed(kernel, 1.0, np.random.default_rng(1))
    one, other = (
        blurred_case(x, 48, (kernel, told), (0.01, 0.01), np.random.default_rng(2))
        for told in (kernel, wrong)
    )
    assert torch.equal(one[:6], other[:6]) and not torch.allclose(one[6:9], other[6:9], atol=0.01)


def test_cases_of_all_kinds_and_items_that_depend_on_their_number_alone(photos):
    x = crop(48 + LARGEST_PX - 1)
    cases = torch.stack([draw_case(x, 48, np.random.default_rng(i)) for i in range(30)])
    assert cases.shape == (30, CHANNELS, 48, 48) and torch.isfinite(cases).all()
    assert 1 <= int((cases[:, -2].amax((1, 2)) > 0.5).sum()) <= 8
    paths = list_pictures(photos)
    one, again = (CaseStream(paths, SMALL, seed=4) for _ in range(2))
    again[0]
    assert torch.equal(one[5], again[5]) and not torch.equal(one[5], one[6])
    assert one[5].shape == (CHANNELS, 16, 16)


def test_held_out_cases_do_not_change():
    x = torch.rand(1, 3, 84, 84, generator=torch.Generator().manual_seed(0))
    first, second = held_out_cases(x), held_out_cases(x)
    assert first.keys() == {"shake", "wrong", "shake10", "defocus", "gaussian", "half", "x3"}
    assert all(torch.equal(cases, second[name]) for name, cases in first.items())
    assert not torch.equal(first["shake"][:, 6:9], first["wrong"][:, 6:9])


def test_it_learns():
    """In 60 steps on four small cases the error falls below that of the middle solutions."""
    x = crop(48 + LARGEST_PX - 1)
    kernel = gaussian_kernel(9, 1.5)
    cases = torch.stack(
        [
            blurred_case(x, 48, (kernel, kernel), (0.02, 0.02), np.random.default_rng(i))
            for i in range(4)
        ]
    )[..., :24, :24]
    torch.manual_seed(0)
    network, task = ResidualUNet(SMALL.network_settings()), OperatorTask(SMALL, {"all": cases})
    before = task.evaluate(network)["psnr_all"]
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        task.loss(network, cases, torch.Generator()).backward()
        optimiser.step()
    assert task.evaluate(network)["psnr_all"] > before + 0.3


def test_it_begins_with_a_regressor_that_denoises_the_middle_solution(tmp_path):
    torch.manual_seed(0)
    regressor = ResidualUNet(SMALL.network_settings() | {"inputs": 3})
    torch.nn.init.normal_(regressor.conv_out.weight, std=0.1)
    path = tmp_path / "regressor.safetensors"
    header = {"kind": "indi", "network": regressor.settings, "domain": "tests"}
    save_weights(path, regressor.state_dict(), header, torch.float32)
    network = ResidualUNet(SMALL.network_settings())
    start_from_regressor(network, path)
    x = torch.rand(1, 3, 8, 8)
    told = stack_evidence(1 - x, [x / 2, x, 1 - x], torch.zeros(1, 1, 8, 8))
    ones = torch.ones(1)
    with torch.no_grad():
        expected = regress(regressor, 2 * x - 1, ones)
        found = reconstructed(network, told, 0.3 * ones)
    assert torch.allclose(found, expected, atol=1e-5) and not torch.allclose(found, 2 * x - 1)
    with pytest.raises(CheckpointError, match="another network"):
        start_from_regressor(ResidualUNet(SMALL.network_settings() | {"layers": 2}), path)


def test_an_interrupted_run_goes_on_where_it_stopped(photos, tmp_path, monkeypatch):
    plan = short(images=6, batch=2, optimiser="muon", learning_rate=0.004)
    straight = train_operator([photos], tmp_path / "a.safetensors", SMALL, plan)
    calm, steps = OperatorTask.loss, iter(range(99))

    def loss(*args):
        if next(steps) == 2:
            raise KeyboardInterrupt
        return calm(*args)

    monkeypatch.setattr(OperatorTask, "loss", loss)
    often, out = replace(plan, save_minutes=1e-9), tmp_path / "b.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_operator([photos], out, SMALL, often)
    monkeypatch.undo()
    resumed = train_operator([photos], out, SMALL, plan, resume=True)
    one, two = read_tensors(straight), read_tensors(resumed)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_command_trains_weights_that_reconstruct(photos, tmp_path):
    out = tmp_path / "own.safetensors"
    words = f"train operator --data {photos} --out {out} --size 16 --channels 8 --channels 16"
    words += " --layers 1 --images 4 --batch 2 --warmup 2 --workers 0 --optimiser muon"
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 0 and kind_of(out) == "operator"
    line = json.loads(out.with_suffix(".jsonl").read_text().splitlines()[-1])
    assert line["images"] == 4 and {"psnr_shake", "psnr_wrong", "psnr_half"} <= line.keys()
    assert load_weights("operator", out).channels == 3
    with pytest.raises(SettingError, match="multiple of 8"):
        OperatorTraining(size_px=20)
