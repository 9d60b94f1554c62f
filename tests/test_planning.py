"""The way of a picture: request, plan, run, finish."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import pristina
from pristina.errors import (
    Cancelled,
    CheckpointError,
    InputError,
    PictureError,
    SettingError,
    SizeError,
)
from pristina.image.picture import Picture
from pristina.methods.steps.result import State
from pristina.operators.blur import GaussianBlur
from pristina.operators.recipe import Recipe
from pristina.planning import make_plan
from pristina.priors.base import SizeRule
from pristina.priors.gaussian import GaussianPrior
from pristina.request import Request
from pristina.seeds import generators

PRIOR = GaussianPrior(variance=0.2)
Y = torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(0))
BLUR = "blur:sigma=1,size=5 | noise:sigma=0.05"
CASES = {
    "mmse": ({}, None),
    "diip": ({"iterations": 3, "sampler_steps": 2, "rule": "none"}, None),
    "bird": ({"iterations": 3, "sampler_steps": 2}, BLUR),
    "invert2restore": ({"iterations": 2, "sampler_steps": 2}, BLUR),
    "dreamclean": ({"levels": 4}, None),
    "gdp": ({"steps": 4}, BLUR),
    "dps": ({"steps": 4}, BLUR),
    "diffpir": ({"steps": 4}, BLUR),
    "ddrm": ({"steps": 4}, BLUR),
}


@pytest.mark.parametrize("name", CASES)
def test_a_plan_says_what_a_run_costs(name):
    settings, recipe = CASES[name]
    options = {"method": name, "prior": PRIOR, "settings": settings, "operator": recipe}
    plan = pristina.plan(Y, **options)
    done = pristina.restore(Y, **options)
    calls = plan.calls
    assert (calls.forward, calls.backward) == (done.cost.network_calls, done.cost.backward_calls)
    assert plan.output_size == done.picture.size == plan.size == (16, 24)
    estimate = plan.estimate()
    assert estimate.seconds > 0 and estimate.peak_bytes > 1e6


def test_samples_and_windows_multiply_the_calls():
    prior = GaussianPrior(variance=0.2)
    prior.size_rule = SizeRule(native=16, minimum=16, fixed=True)
    options = {"method": "dps", "operator": BLUR, "settings": {"steps": 3}, "prior": prior}
    one = pristina.plan(Y[..., :16], **options)
    wide = pristina.plan(Y, samples=2, **options)
    assert (one.windows, wide.windows) == (1, 2)
    assert (one.calls.forward, wide.calls.forward) == (3, 3 * 2 * 2)
    done = pristina.restore(Y, samples=2, **options)
    assert done.cost.network_calls == wide.calls.forward and done.picture.size == (16, 24)


def test_restoring_is_planning_running_and_finishing():
    options = {"method": "bird", "prior": PRIOR, "operator": BLUR, "settings": CASES["bird"][0]}
    whole = pristina.restore(Y, seed=5, **options)
    plan = pristina.plan(Y, seed=5, **options)
    assert torch.equal(pristina.run(plan, Y[None]).images[0], whole.picture.pixels)
    batch = torch.stack([Y, Y.flip(-1)])
    both = pristina.run(plan, batch, generator=generators(5, 2))
    torch.testing.assert_close(both.images[0], whole.picture.pixels, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="The plan is for images of 24 x 16 px"):
        pristina.run(plan, batch[..., :16])


def test_a_cancelled_restoration_goes_on_to_the_same_bits():
    options = {"method": "bird", "prior": PRIOR, "operator": BLUR, "settings": CASES["bird"][0]}

    def cancel(event):
        if event.step == 2:
            raise Cancelled

    whole = pristina.restore(Y, **options)
    part = pristina.restore(Y, on_step=cancel, **options)
    assert "cancelled" in str(part.result.stopped[0])
    rest = pristina.restore(Y, start=part.result.state, **options)
    assert torch.equal(rest.picture.pixels, whole.picture.pixels)
    assert torch.equal(rest.result.trace["loss"], whole.result.trace["loss"])
    with pytest.raises(InputError, match="diip cannot start from a state of bird"):
        pristina.restore(Y, method="diip", prior=PRIOR, start=part.result.state)
    with pytest.raises(InputError, match="Several samples cannot start"):
        pristina.restore(Y, samples=2, start=part.result.state, **options)


def test_two_threads_share_a_prior_and_count_apart():
    counts = []

    def work(iterations):
        settings = {"iterations": iterations, "sampler_steps": 5, "rule": "none"}
        done = pristina.restore(Y, method="diip", prior=PRIOR, settings=settings)
        counts.append((iterations, done.cost.network_calls))

    threads = [threading.Thread(target=work, args=(n,)) for n in (20, 20, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == [(n, 5 * (n + 1)) for n in (20, 20, 30)] and PRIOR.n_calls == 0


def test_what_cannot_be_done_is_refused_while_planning():
    for options, error, sentence in [
        ({"method": "magic"}, SettingError, "no method 'magic'"),
        ({"method": "bird", "operator": "blurr:sigma=2"}, pristina.OperatorError, "blurr"),
        ({"method": "dps"}, InputError, "needs the form of the degradation"),
        ({"method": "indi", "prior": PRIOR}, CheckpointError, "A regressor is needed"),
        ({"method": "diip", "prior": "faces"}, SizeError, "far from square"),
        ({"operator": GaussianBlur(1.0)}, SettingError, "name it too"),
        ({"method": "mmse", "samples": 0}, SettingError, "between 1 and 1000"),
    ]:
        with pytest.raises(error, match=sentence):
            pristina.plan(Y, **options)


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", ""])
def test_a_device_that_is_not_here_is_named(device):
    with pytest.raises(SettingError, match="cannot be used here; try auto or cpu"):
        pristina.load_prior(PRIOR, device=device)
    assert pristina.load_prior(PRIOR, device="auto") is PRIOR


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"operator": 3}, "a recipe, such as 'blur:sigma=2', not int"),
        ({"operator": GaussianBlur}, "not type"),
        ({"on_step": 3}, "on_step must be a function"),
        ({"prior": 3}, "not by int"),
        ({"prior": ""}, "prior cannot be empty"),
        ({"prior": "a\0b"}, "prior cannot hold the character NUL"),
        ({"method": 3}, "method must be text"),
        ({"method": "dip", "settings": {}}, "dip uses no weights"),
        ({"settings": 3}, "takes settings by name"),
        ({"settings": {3: 4}}, "no setting 3"),
        ({"samples": "a"}, "samples must be a whole number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": True}, "seed must be a whole number"),
        ({"device": "meta"}, "device 'meta' cannot be used"),
        ({"device": 3}, "device must be text"),
        ({"preset": 3}, "preset must be text"),
        ({"start": 3}, "start must be the state of an earlier result"),
        ({"start": State("diip", 0)}, "is empty"),
        ({"method": "mmse", "settings": {}, "start": State("diip", 0)}, "makes a single step"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(options, sentence):
    given = {"method": "diip", "prior": PRIOR, "settings": CASES["diip"][0], **options}
    with pytest.raises(pristina.PristinaError, match=sentence):
        pristina.restore(Y, **given)


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (Y.to_sparse(), "dense"),
        (torch.nested.nested_tensor([Y], layout=torch.jagged), "dense"),
        (Y.to("meta"), '"meta" has none'),
        (Y + 0j, "floating-point numbers"),
        (Y.long(), "floating-point numbers"),
        (Y[:, :0], r"px|\(3, 0, 24\)"),
        (None, "NoneType"),
        ("a\0b", "NUL|not str"),
    ],
    ids=["sparse", "nested", "meta", "complex", "whole", "empty", "none", "text"],
)
def test_a_tensor_that_holds_no_images_is_named(tensor, sentence):
    options = {"method": "mmse", "prior": PRIOR}
    with pytest.raises(InputError, match=sentence):
        pristina.restore(tensor, **options)
    plan = pristina.plan(Y, **options)
    batch = tensor
    if isinstance(tensor, torch.Tensor) and not tensor.is_nested:
        batch = tensor[None]
    with pytest.raises(InputError, match=sentence):
        pristina.run(plan, batch)


def test_a_run_takes_a_plan_and_a_batch_of_images():
    plan = pristina.plan(Y, method="mmse", prior=PRIOR)
    for images, sentence in [
        (Y[None].numpy(), "torch tensor, not ndarray"),
        (pristina.Picture.of(Y), "torch tensor, not Picture"),
        (Y[None][:0], r"not \(0, 3, 16, 24\)"),
        (Y, r"not \(3, 16, 24\)"),
    ]:
        with pytest.raises(InputError, match=sentence):
            pristina.run(plan, images)
    with pytest.raises(InputError, match="run takes a plan"):
        pristina.run(Y, plan)
    for generator in (3, "a", [3], [None], [torch.Generator()] * 2):
        with pytest.raises(InputError, match="generator"):
            pristina.run(plan, Y[None], generator=generator)
    with_gradient = pristina.run(plan, Y[None].clone().requires_grad_()).images
    assert torch.equal(with_gradient, pristina.run(plan, Y[None]).images)


def test_a_plan_without_a_picture():
    plan = make_plan(Request(method="diip", seed=1), (20, 20), weights=PRIOR)
    result = pristina.run(
        replace(plan, request=Request(method="diip", seed=1)),
        torch.rand(1, 3, 20, 20),
        on_step=_stop,
    )
    assert result.seeds == [1] and result.images.shape == (1, 3, 20, 20)


def _stop(event):
    raise Cancelled


def test_a_recipe_and_a_device_are_taken_as_values_and_as_text():
    text = "blur:sigma=1,size=5 | noise:sigma=0.1"
    settings = {"method": "dps", "prior": PRIOR, "settings": {"steps": 3}}
    one = pristina.restore(Y, operator=text, device="cpu", **settings)
    other = pristina.restore(Y, operator=Recipe.parse(text), device=torch.device("cpu"), **settings)
    assert torch.equal(one.picture.pixels, other.picture.pixels)
    assert one.plan.request == other.plan.request


@pytest.mark.parametrize("path", [None, 3, b"x.png"])
def test_a_path_is_no_number(path):
    with pytest.raises(PictureError, match="A file is given by its path, not by"):
        Picture.open(path)


def test_arrays_and_pillow_images_are_pictures():
    levels = (255 * Y.permute(1, 2, 0)).round().byte().numpy()
    options = {"method": "mmse", "prior": PRIOR}
    a = pristina.restore(levels, **options).picture.pixels
    b = pristina.restore(Image.fromarray(levels), **options).picture.pixels
    c = pristina.restore(torch.from_numpy(levels / np.float32(255)).permute(2, 0, 1), **options)
    assert torch.equal(a, b) and torch.equal(a, c.picture.pixels)
    with pytest.raises(pristina.PictureError, match="0, 1"):
        pristina.restore(255 * Y, **options)


def test_a_diverged_run_is_an_error():
    class Broken(GaussianPrior):
        def predict_x0(self, x_t, t, alpha_bar):
            return super().predict_x0(x_t, t, alpha_bar) * float("nan")

    with pytest.raises(InputError, match="diverged"):
        pristina.restore(Y, method="mmse", prior=Broken(variance=0.2))
