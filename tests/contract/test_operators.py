"""One battery for every operator of the table, then recipes, the table itself and the errors."""

import importlib
import inspect
import json
import math
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch.func import functional_call

import pristina.operators
from pristina.cli.degrade import degrade as degrade_command
from pristina.errors import InputError, MissingExtra, OperatorError, PictureError, SettingError
from pristina.image.picture import Picture
from pristina.operators.base import Compose, Observation, Operator
from pristina.operators.blur import Blur, FreeKernel, GaussianBlur, KernelBlur, VaryingBlur
from pristina.operators.convolve import convolve
from pristina.operators.index import OPERATORS, OperatorEntry
from pristina.operators.kernels import load_kernels, motion_kernel
from pristina.operators.mask import Mask
from pristina.operators.noise import Noise
from pristina.operators.recipe import Recipe, parameters
from pristina.operators.spectral import spectrum
from pristina.operators.tone import Haze
from pristina.operators.warp import Elastic
from pristina.operators.weather import Rain, WaterDrops
from pristina.seeds import generators
from pristina.types import Draw

torch.set_num_threads(1)  # tiny images: threads only wait for each other
SIDE = 12
MORE_CASES = [
    "blur:sigma=1.3,size=7,boundary=valid",
    "kernel:size=7,parametrisation=network,boundary=circular",
    "jpeg:quality=70,rounding=soft,subsample=no",
    "mask:drop=0.4,seed=1",
    "blur:sigma=1,size=5 | area:factor=2 | exposure:gain=0.8 | noise:sigma=0.1",
]
"""Variants of operators; the case of each operator itself stands in its line of the table."""
CASES = [f"{word}:{entry.case or entry.example}" for word, entry in OPERATORS.items()] + MORE_CASES


def make(recipe: str) -> Operator:
    return Recipe.parse(recipe).build(1)


def images(n: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return 0.1 + 0.8 * torch.rand(
        n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=dtype
    )


def move(operator: Operator) -> Operator:
    """Move every learnable parameter a little, differently for each image."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in operator.parameters():
            if p.requires_grad:
                p += 0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p)
    return operator


def test_every_operator_of_the_table_is_in_the_battery() -> None:
    covered = {word.name for case in CASES for word in Recipe.parse(case).words}
    assert covered == set(OPERATORS)


@pytest.mark.parametrize("recipe", CASES)
def test_sizes_words_and_numbers(recipe: str) -> None:
    operator, x = make(recipe), images()
    y = operator(x)
    assert y.dtype == torch.float32 and torch.isfinite(y).all()
    assert operator.picture_size(*y.shape[-2:]) == (SIDE, SIDE)
    operator.check(y)
    assert Observation(y, operator).size == (SIDE, SIDE)
    initial = operator.initial(y)
    assert initial.shape == x.shape and torch.isfinite(initial).all()
    for which in (operator, operator.for_batch(2), operator.for_batch(6)):
        words = which.describe()
        assert words != Operator().describe() and which.estimates()
        assert len(words) > 3 and words == words.strip() and not words.endswith(".")
        assert json.loads(json.dumps(which.estimates())) == which.estimates()
    if isinstance(operator, Blur):
        assert (
            operator.estimates()["size"] == operator.size
            and operator.estimates()["boundary"] == operator.boundary
        )
        assert operator.kernel().shape == (1, 1, operator.size, operator.size)
        assert abs(float(operator.kernel().detach().sum()) - 1) < 1e-5


@pytest.mark.parametrize("recipe", CASES)
def test_each_picture_of_a_batch_has_its_own_unknowns(recipe: str) -> None:
    operator, x = make(recipe), images(3)
    before = [p.detach().clone() for p in operator.parameters()]
    batch = move(operator.for_batch(3))
    assert all(torch.equal(a, b) for a, b in zip(operator.parameters(), before, strict=True))
    assert all(len(p) == 3 for p in batch.parameters() if p.requires_grad)
    together = batch(x)
    for i in range(3):
        row = torch.arange(3) == i
        alone = batch.keep(row)(x[row])
        torch.testing.assert_close(alone, together[row], atol=2e-5, rtol=0)
    if any(p.requires_grad for p in operator.parameters()) and not isinstance(operator, Noise):
        torch.testing.assert_close(operator.for_batch(3)(x), operator(x), atol=2e-5, rtol=0)
        assert (together - operator(x)).abs().max() > 1e-4


@pytest.mark.parametrize("recipe", CASES)
def test_gradients(recipe: str) -> None:
    operator = move(make(recipe).double())
    names = [name for name, p in operator.named_parameters() if p.requires_grad]
    values = [p.detach().clone().requires_grad_() for p in operator.parameters() if p.requires_grad]
    x = images(1, torch.float64).requires_grad_()

    def apply(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return functional_call(operator, dict(zip(names, values, strict=True)), (x,))

    if isinstance(operator, Noise):
        names, values = [], []  # they are in the variance, below
    assert torch.autograd.gradcheck(apply, (x, *values), fast_mode=True, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("recipe", [c for c in CASES if make(c).linear])
def test_linear_operators_are_and_have_an_exact_adjoint(recipe: str) -> None:
    operator = make(recipe).double()
    x, z = images(2, torch.float64), images(2, torch.float64).flip(-1) - 0.7
    torch.testing.assert_close(operator(2 * x - 3 * z), 2 * operator(x) - 3 * operator(z))
    y = torch.randn(
        operator(x).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    back = operator.adjoint(y)
    assert back.shape == x.shape
    torch.testing.assert_close((operator(x) * y).sum((1, 2, 3)), (x * back).sum((1, 2, 3)))


@pytest.mark.parametrize("recipe", [c for c in CASES if not make(c).linear])
def test_others_say_so(recipe: str) -> None:
    operator, x = make(recipe), images()
    if "learned" in recipe:
        operator = move(operator)
    assert (operator(2 * x) - 2 * operator(x)).abs().max() > 1e-3
    with pytest.raises(OperatorError, match="not linear"):
        operator.adjoint(x)


@pytest.mark.parametrize("recipe", CASES)
def test_degrading_depends_on_the_seed_and_on_nothing_else(recipe: str) -> None:
    x = images(3)
    first = make(recipe).degrade(x, Draw(generators(3, 3), 3))
    assert torch.equal(make(recipe).degrade(x, Draw(generators(3, 3), 3)), first)
    alone = make(recipe).degrade(x[1:2], Draw(generators(4, 1), 1))
    torch.testing.assert_close(alone, first[1:2], atol=2e-6, rtol=0)
    if isinstance(make(recipe), Noise):
        assert (make(recipe).degrade(x, Draw(generators(9, 3), 3)) - first).abs().max() > 0.01


@pytest.mark.parametrize("recipe", ["rain", "drops"])
def test_what_was_drawn_without_gradients_serves_with_them(recipe: str) -> None:
    operator = Recipe.parse(recipe).build(123)
    with torch.inference_mode():
        operator(images())
    operator(images().requires_grad_()).sum().backward()


@pytest.mark.parametrize(
    "recipe",
    ["noise:sigma=0.1,learnable=yes", "poisson:peak=30,learnable=yes", "speckle:learnable=yes"],
)
def test_the_strength_of_noise_can_be_learned(recipe: str) -> None:
    operator = move(make(recipe).for_batch(2))
    assert isinstance(operator, Noise)
    x = images()
    for p in torch.autograd.grad(
        operator.variance(x).expand_as(x).sum(), list(operator.parameters())
    ):
        assert p.shape[0] == 2 and (p.abs() > 1e-6).all()


def test_a_word_draws_its_own_numbers() -> None:
    a, b = make("motion:size=21"), Recipe.parse("motion:size=21").build(2)
    assert not torch.equal(a.kernel(), b.kernel())
    assert torch.equal(make("motion:size=21,seed=2").kernel(), b.kernel())
    mask = make("mask:drop=0.5")(torch.ones(1, 1, 64, 64)).flatten()
    noise = Draw(generators(1, 1), 1).uniform(1, 64, 64).flatten()
    assert abs(float(torch.corrcoef(torch.stack([mask, noise]))[0, 1])) < 0.06


def test_the_form_of_a_recipe_does_not_know_what_was_drawn() -> None:
    form = Recipe.parse("motion:size=9,intensity=0.5 | noise:sigma=0.05 | jpeg:quality=20").form()
    assert isinstance(form, Compose)
    assert isinstance(form.parts[0], FreeKernel) and form.parts[0].size == 9
    assert torch.allclose(form.parts[0].kernel(), form.parts[0].kernel().mT)
    assert form.parts[2].estimates()["quality"] == 20
    x = images()
    assert torch.allclose(Recipe.parse("elastic:amplitude_px=3,scale_px=4").form()(x), x, atol=1e-5)
    varying = Recipe.parse("varying:size=5").form()
    assert isinstance(varying, VaryingBlur) and torch.allclose(
        varying.kernels()[:, 0], varying.kernels()[:, 3]
    )


@pytest.mark.parametrize(
    "recipe", ["blur:sigma=2,learnable=no", "elastic:learnable=no", "turbulence:learnable=no"]
)
def test_what_a_form_calls_known_is_not_learned(recipe: str) -> None:
    assert not any(p.requires_grad for p in Recipe.parse(recipe).form().parameters())


@pytest.mark.parametrize("word", [word for word, entry in OPERATORS.items() if entry.example])
def test_the_examples_of_arguments_that_must_be_given_can_be_read(word: str) -> None:
    with pytest.raises(
        OperatorError, match=f"{word} needs .* for example {word}:{OPERATORS[word].example}"
    ):
        Recipe.parse(word).build()
    Recipe.parse(f"{word}:{OPERATORS[word].example}").build().describe()


def test_an_unknown_kernel_starts_as_a_gaussian() -> None:
    start = Recipe.parse("kernel:size=15").build()
    assert torch.equal(start.logits, Recipe.parse("motion:size=15").form().logits)
    assert torch.equal(start.logits, Recipe.parse("kernel:size=15,sigma=1.875").build().logits)


def test_a_word_that_comes_again_draws_something_else() -> None:
    first, second = Recipe.parse("motion:size=15 | motion:size=15").build(3).parts
    assert torch.equal(first.kernel(), Recipe.parse("motion:size=15").build(3).kernel())
    assert (first.kernel() - second.kernel()).abs().max() > 0.01
    same = Recipe.parse("motion:size=15,seed=3 | motion:size=15,seed=3").build().parts
    assert torch.equal(same[0].kernel(), same[1].kernel())


@pytest.mark.parametrize("recipe", CASES)
def test_the_form_of_a_recipe_hides_no_random_numbers(recipe: str) -> None:
    parsed = Recipe.parse(recipe.replace(",learnable=yes", ""))
    if any(word.entry.places for word in parsed.words):
        with pytest.raises(OperatorError, match="cannot be estimated"):
            parsed.form()
        return
    one, two = parsed.form(1), parsed.form(2)
    if not any(p.requires_grad for p in one.parameters()):
        assert torch.equal(one(images()), two(images())), "give the entry a form, places or drawn"


def test_a_recipe_is_a_value() -> None:
    recipe = Recipe.parse(" blur : sigma = 2,size=21, |noise:sigma=0.1")
    assert str(recipe) == "blur:sigma=2,size=21 | noise:sigma=0.1"
    assert recipe == Recipe.parse(str(recipe)) and len({recipe, Recipe.parse(str(recipe))}) == 1
    assert recipe != Recipe.parse("blur:sigma=2.5,size=21 | noise:sigma=0.1")
    with pytest.raises(AttributeError):
        recipe.words = ()


def test_lengths_in_braces_grow_with_the_image() -> None:
    recipe = Recipe.parse("blur:sigma={1.6},size={21} | radon:n_angles=30,size={size}")
    assert str(recipe.at(64)) == "blur:sigma=1.6,size=21 | radon:n_angles=30,size=64"
    assert str(recipe.at(256)) == "blur:sigma=6.4,size=85 | radon:n_angles=30,size=256"
    assert recipe.at(64).at(256) == recipe.at(64)
    with pytest.raises(OperatorError, match=r"a number for sigma, not '\{1.6\}'"):
        recipe.build()
    for text, words in [("{1.2.3}", "holds no number"), ("{wide}", "a number for sigma")]:
        with pytest.raises(OperatorError, match=words):
            Recipe.parse(f"blur:sigma={text}")


def test_the_files_of_a_recipe() -> None:
    assert Recipe.parse("noise:sigma=1 | mask: file = a b.png ").files == (Path("a b.png"),)
    assert Recipe.parse("blur:sigma={1.6} | noise:sigma=0.1").files == ()
    assert Recipe.parse("mask:file=x{size}.png").at(256).files == (Path("x{size}.png"),)


@pytest.mark.parametrize(
    ("recipe", "sigma"),
    [
        ("blur:sigma=2 | noise:sigma=0.05", 0.05),
        ("noise:sigma=0.1", 0.1),
        ("noise:sigma=0.1 | blur:sigma=2", None),
        ("poisson:peak=30 | noise:sigma=0.1", None),
        ("noise:sigma=0.1 | noise:sigma=0.1", None),
        ("speckle", None),
        ("blur:sigma=2", None),
    ],
)
def test_the_noise_of_a_recipe(recipe: str, sigma: float | None) -> None:
    assert Recipe.parse(recipe).noise == (sigma and pytest.approx(sigma))


def test_a_form_must_know_which_pixels_are_lost() -> None:
    with pytest.raises(OperatorError, match="give mask the seed"):
        Recipe.parse("blur:sigma=2 | mask : drop = 0.5").form()
    form, truth = Recipe.parse("mask:drop=0.5,seed=7").form(3), Recipe.parse("mask:drop=0.5")
    assert torch.equal(form.mask(8, 8), truth.build(7).mask(8, 8))


def stroke(
    size: int | None = None,
    shape: Literal["point", "line"] = "point",
    order: Literal[1, 2] = 1,
    share: float | None = None,
    source: Path | None = None,
    flipped: bool | None = None,
) -> Operator:
    operator = Operator()
    operator.given = {k: v for k, v in locals().items() if k != "operator"}
    return operator


def test_arguments_have_the_type_of_their_annotation(monkeypatch) -> None:
    monkeypatch.setitem(OPERATORS, "stroke", OperatorEntry("a test", stroke))
    text = "stroke:size=3,shape=line,order=2,share=1,source=a.png,flipped=yes"
    given = Recipe.parse(text).build().given
    values = {"size": 3, "shape": "line", "order": 2, "share": 1.0, "flipped": True}
    assert given == {**values, "source": Path("a.png")}
    assert type(given["size"]) is type(given["order"]) is int and type(given["share"]) is float
    bad = [
        ("shape=disc", "shape must be point or line, not 'disc'"),
        ("order=3", "order must be 1 or 2, not '3'"),
        ("size=2.5", "a whole number for size"),
        ("flipped=up", "flipped=yes or flipped=no"),
    ]
    for argument, words in bad:
        with pytest.raises(InputError, match=words):
            Recipe.parse(f"stroke:{argument}")


def test_an_argument_that_cannot_be_written_is_an_error_of_the_table() -> None:
    def build(points: list[int]) -> Operator:
        return Operator()

    with pytest.raises(TypeError, match="points is"):
        parameters(build)


@pytest.mark.parametrize("word", OPERATORS)
def test_the_table_agrees_with_what_is_built(word: str) -> None:
    entry = OPERATORS[word]
    built = make(f"{word}:{entry.case or entry.example}")
    assert entry.is_noise == isinstance(built, Noise)
    assert built.name == word
    if entry.form is not None:
        required = {name for name, p in parameters(entry.form).items() if p.required}
        assert required <= parameters(entry.build).keys()
    assert not entry.drawn or entry.drawn[0] in parameters(entry.build)


def operator_classes() -> list[type[Operator]]:
    modules = [
        importlib.import_module(f"pristina.operators.{module.name}")
        for module in pkgutil.iter_modules(pristina.operators.__path__)
    ]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Operator)
        and value.__module__ == module.__name__
    ]


def test_every_operator_has_a_word_and_is_exported() -> None:
    abstract = {Operator, Compose, Blur, Noise}
    for operator in operator_classes():
        assert getattr(pristina.operators, operator.__name__) is operator
        if operator not in abstract:
            names = [operator.name] if isinstance(operator.name, str) else ["area"]
            assert set(names) <= set(OPERATORS), f"{operator.__name__} is not in the table"


def test_public_names_are_imported_when_they_are_used() -> None:
    public = pristina.operators.__all__
    assert public == sorted(set(public)) == dir(pristina.operators)
    assert {"Recipe", "Operator", "Compose", "Observation", "OPERATORS", "Mask"} <= set(public)
    for name in public:
        assert getattr(pristina.operators, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Fog'"):
        _ = pristina.operators.Fog
    heavy = "import sys, pristina.operators; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", heavy]).returncode == 0


def as_written(name: str, default: object) -> str:
    """Write an argument with its default as in the documentation."""
    if default is None or default is inspect.Parameter.empty:
        return name
    if isinstance(default, bool):
        return f"{name}={'yes' if default else 'no'}"
    return f"{name}={default if isinstance(default, str) else format(default, 'g')}"


@pytest.mark.parametrize("word", OPERATORS)
def test_every_word_stands_in_the_documentation(word: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operators.md").read_text()
    rows = re.findall(rf"^\| `{word}` \|([^|]*)\|([^|]*)\|([^|]*)\|$", page, re.MULTILINE)
    assert len(rows) == 1, f"docs/operators.md needs one row for {word}"
    arguments = inspect.signature(OPERATORS[word].build).parameters.values()
    written = [as_written(p.name, p.default) for p in arguments]
    assert re.findall(r"`([^`]+)`", rows[0][1]) == written


BAD_RECIPES = [
    ("", "words are blur"),
    ("blur:sigma=2 | ", "words are blur"),
    ("blurr:sigma=2", "no operator 'blurr'"),
    ("blur", "needs sigma"),
    ("blur:sigma", "name=value"),
    ("blur:sigma=", "name=value"),
    ("blur:sigma=two", "a number for sigma"),
    ("blur:sigma=2,sigma=3", "twice"),
    ("blur:radius=2", "has no 'radius'; it takes sigma"),
    ("blur:sigma=-1", "sigma must be positive"),
    ("blur:sigma=nan", "finite"),
    ("blur:sigma=2,size=20", "odd"),
    ("blur:sigma=2,size=0", "odd"),
    ("blur:sigma=2,size=-3", "at least 1, .* not -3; take 1"),
    ("blur:sigma=2,size=100001", "at most 10000 for size"),
    ("blur:sigma=25", "cut off in a kernel of 41 px; take size=151"),
    ("anisotropic:sigma_x=2,sigma_y=25", "cut off"),
    ("turbulence:sigma=25", "cut off"),
    ("turbulence:tilt_px=-1", "tilt_px must"),
    ("blur:sigma=2,boundary=mirror", "boundary must be one of"),
    ("blur:sigma=2,learnable=perhaps", "learnable=yes or learnable=no"),
    ("defocus:radius=9,size=7", "does not fit"),
    ("defocus:radius=0.4", "take a radius above 0.5"),
    ("motion:size=7.5", "a whole number for size"),
    ("motion:size=8", "odd"),
    ("motion:intensity=2", "between 0 and 1"),
    ("kernel:size=7,parametrisation=mlp", "logits or network"),
    ("kernel:size=7,parametrisation=network,sigma=2", "no sigma"),
    ("varying:rows=0", "at least 1"),
    ("varying:boundary=valid", "no valid border"),
    ("area:factor=1", "at least 2"),
    ("antialias:factor=2,boundary=valid", "no valid border"),
    ("noise:sigma=-0.1", "sigma must be positive"),
    ("poisson:peak=0", "peak must be positive"),
    ("jpeg:quality=0", "between 1 and 100"),
    ("jpeg:quality=20,rounding=none", "straight or soft"),
    ("mask", "exactly one of: box .*, file"),
    ("mask:box=4,drop=0.2", "exactly one of"),
    ("mask:box=0", "at least 1 px"),
    ("mask:drop=1.5", "between 0 and 1"),
    ("grey:how=max", "mean or luma"),
    ("exposure:gain=0", "positive"),
    ("haze:transmission=1.2", "between 0 and 1, without the ends, not 1.20"),
    ("elastic:amplitude_px=-1", "not be negative"),
    ("elastic:scale_px=0.5", "at least 1"),
    ("rain:density=0", "between 0 and 1"),
    ("drops:radius_px=0", "positive"),
    ("radon:n_angles=0,size=8", "at least 1"),
    ("learned:depth=1", "depth at least 2"),
    ("learned:channels=-1", "channels must be at least 1"),
    *(
        (recipe, "a finite number for")
        for recipe in (
            "elastic:scale_px=nan",
            "kernel:sigma=nan",
            "rain:angle=inf",
            "drops:blur_px=inf",
        )
    ),
]


@pytest.mark.parametrize(("recipe", "words"), BAD_RECIPES)
def test_bad_recipes_give_one_sentence(recipe: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Recipe.parse(recipe).build()
    assert type(caught.value) in (OperatorError, SettingError)
    assert str(caught.value).endswith((".", "?")) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "recipe",
    [
        "motion:intensity=7",
        "elastic:amplitude_px=-5",
        "varying:intensity=9",
        "turbulence:tilt_px=-1",
    ],
)
def test_the_unknown_form_checks_the_numbers_it_does_without(recipe: str) -> None:
    with pytest.raises(SettingError):
        Recipe.parse(recipe).form()


@pytest.mark.parametrize("word", ["noise:sigma=0.1", "poisson:peak=30", "speckle"])
def test_a_form_does_not_promise_to_estimate_the_strength_of_noise(word: str) -> None:
    assert not any(p.requires_grad for p in Recipe.parse(word).form().parameters())
    with pytest.raises(OperatorError, match="leave learnable=yes out"):
        Recipe.parse(word + (",learnable=yes" if ":" in word else ":learnable=yes")).form()


NOT_FINITE = [
    lambda v: Elastic(amplitude_px=v),
    lambda v: Elastic(scale_px=v),
    lambda v: Rain(angle=v),
    lambda v: WaterDrops(radius_px=v),
    lambda v: WaterDrops(refraction=v),
    lambda v: WaterDrops(blur_px=v),
    lambda v: FreeKernel(7, sigma=v),
    lambda v: VaryingBlur.free(7, sigma=v),
    lambda v: GaussianBlur(v),
]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("build", NOT_FINITE)
def test_numbers_must_be_finite(build, value: float) -> None:
    with pytest.raises(SettingError, match=f"must be a finite number, not {value}"):
        build(value)


def test_places_cannot_be_the_form_of_unknown_damage() -> None:
    with pytest.raises(OperatorError, match="leave rain out"):
        Recipe.parse("rain").form()


BAD_FITS = [
    (
        "blur:sigma=2,size=41",
        (1, 3, 12, 12),
        "41 x 41 px kernel is too large for a 12 x 12 px image",
    ),
    ("antialias:factor=2,size=61", (1, 3, 6, 6), "too large"),
    ("mask:box=12", (1, 3, 12, 12), "smaller box"),
    ("mask:drop=0.99999", (1, 3, 12, 12), "leaves no pixel"),
    ("elastic:extent_px=10", (1, 3, 12, 12), "extent_px=12"),
    ("radon:n_angles=4,size=12", (1, 3, 12, 5), "4 angles across"),
    ("grey", (1, 3, 12, 12), "1 channel"),
]


@pytest.mark.parametrize(("recipe", "shape", "words"), BAD_FITS)
def test_an_observation_that_does_not_fit_is_refused(
    recipe: str, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(OperatorError, match=words):
        Observation(torch.rand(shape), Recipe.parse(recipe).build())


def test_an_observation_is_float32() -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        assert Observation(torch.rand(1, 3, 8, 8).to(dtype)).y.dtype == torch.float32
    y = torch.rand(1, 3, 8, 8)
    assert Observation(y).y.data_ptr() == y.data_ptr()
    for sigma in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="known_sigma must be"):
            Observation(y, known_sigma=sigma)


def test_other_misfits() -> None:
    x = images(2)
    cases = [
        (lambda: make("area:factor=5")(x), "multiples"),
        (lambda: make("radon:n_angles=4,size=10")(x), "10 x 10 px"),
        (lambda: make("grey")(x[:, :1]), "3 channels"),
        (lambda: make("haze")(x[:, :1]), "3 channels"),
        (lambda: make("learned")(x[:, :1]), "3 channels"),
        (lambda: make("learned")(x[..., :1, :1]), "2 px at least"),
        (
            lambda: make("jpeg:quality=20").degrade(
                torch.zeros(1, 3, 1, 70_000), Draw(generators(0, 1), 1)
            ),
            "at most 65500 px",
        ),
        (lambda: make("blur:sigma=1,size=5").for_batch(2).for_batch(3), "for 2 images, not for 3"),
        (
            lambda: spectrum(KernelBlur(torch.ones(1, 1, 3, 3) / 8), 12, 12),
            "divide the kernel by its sum",
        ),
        (lambda: Mask(torch.ones(1, 1, 8, 8))(x), "mask of the image's size"),
        (lambda: Mask(torch.ones(3, 1, 12, 12)).check(x), "3 masks for 2 images"),
        (lambda: Mask(torch.full((1, 1, 8, 8), 0.5)), "nothing between"),
        (lambda: Mask(torch.zeros(1, 1, 8, 8)), "at least one pixel"),
        (lambda: Mask(torch.ones(8, 8)), "shape"),
        (lambda: KernelBlur(torch.ones(3, 3)), "shape"),
        (lambda: convolve(x, torch.ones(3, 1, 3, 3)), "2 images need kernels"),
        (lambda: convolve(x, torch.ones(1, 1, 13, 13), "valid"), "at most 11 px"),
        (lambda: VaryingBlur(torch.ones(3, 3, 3)), "rows, columns"),
    ]
    for call, words in cases:
        with pytest.raises(OperatorError, match=words):
            call()
    with pytest.raises(SettingError, match="odd"):
        KernelBlur(torch.ones(1, 1, 4, 4))
    with pytest.raises(SettingError, match="one number or three"):
        Haze(0.5, [0.1, 0.2])
    with pytest.raises(SettingError, match="odd"):
        motion_kernel(10, 0.5, torch.Generator())


def test_a_mask_comes_from_a_file(tmp_path) -> None:
    levels = Image.new("L", (12, 12), 255)
    levels.paste(0, (2, 3, 6, 9))
    levels.save(tmp_path / "hole.png")
    Image.fromarray(np.where(np.asarray(levels), 50_000, 20_000).astype(np.uint16)).save(
        tmp_path / "deep.png"
    )
    for name in ("hole.png", "deep.png"):
        y = Recipe.parse(f"mask:file={tmp_path / name}").build()(torch.ones(1, 3, 12, 12))
        assert int((y == 0).sum()) == 3 * 24 and (y[..., 3:9, 2:6] == 0).all()
    with pytest.raises(PictureError, match="cannot be read"):
        Recipe.parse(f"mask:file={tmp_path / 'none.png'}").build()


def test_transparent_pixels_of_a_mask_are_lost(tmp_path) -> None:
    white, opacity = Image.new("L", (12, 12), 255), Image.new("L", (12, 12), 255)
    opacity.paste(0, (2, 3, 6, 9))
    Image.merge("RGBA", [white, white, white, opacity]).save(tmp_path / "white.png")
    Image.merge("LA", [white, opacity]).save(tmp_path / "grey.png")
    Image.merge("RGBA", [opacity, opacity, opacity, opacity]).save(tmp_path / "both.png")
    for name in ("white.png", "grey.png", "both.png"):
        mask = Mask.from_file(tmp_path / name)
        assert int((mask.mask(12, 12) == 0).sum()) == 24
        assert mask.describe().startswith("16.7 %")
    scene = Image.fromarray((np.arange(432) % 256).reshape(12, 12, 3).astype(np.uint8))
    scene.putalpha(opacity)
    scene.save(tmp_path / "scene.png")
    with pytest.raises(OperatorError, match="unclear what is lost; save it without transparency"):
        Mask.from_file(tmp_path / "scene.png")
    white.putalpha(Image.new("L", (12, 12), 0))
    white.save(tmp_path / "none.png")
    with pytest.raises(OperatorError, match="at least one pixel"):
        Mask.from_file(tmp_path / "none.png")


def test_kernels_come_from_a_file(tmp_path, monkeypatch) -> None:
    from scipy.io import savemat

    odd, even = torch.rand(7, 7).numpy(), torch.rand(6, 6).numpy()
    savemat(tmp_path / "old.mat", {"a": odd, "b": even, "negative": -odd, "name": "x"})
    kernels = load_kernels(tmp_path / "old.mat")
    assert [tuple(k.shape) for k in kernels] == [(1, 1, 7, 7), (1, 1, 7, 7)]
    assert all(abs(float(k.sum()) - 1) < 1e-6 for k in kernels)
    savemat(tmp_path / "empty.mat", {"negative": -odd})
    with pytest.raises(InputError, match="holds no kernel"):
        load_kernels(tmp_path / "empty.mat")
    with pytest.raises(InputError, match="cannot be read"):
        load_kernels(tmp_path / "none.mat")
    for damaged in (b"", b"no MATLAB file at all " * 20):
        (tmp_path / "bad.mat").write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            load_kernels(tmp_path / "bad.mat")
    (tmp_path / "new.mat").write_bytes(b"MATLAB 7.3 MAT-file" + bytes(200))
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingExtra, match="h5py"):
        load_kernels(tmp_path / "new.mat")


def test_the_command_writes_the_picture_and_the_truth(tmp_path, capsys) -> None:
    Picture.from_pixels(torch.rand(3, 24, 24)).save(tmp_path / "in.png")
    for name in ("a.png", "b.png"):
        degrade_command(
            tmp_path / "in.png",
            output=tmp_path / name,
            operator="motion:size=9 | noise:sigma=0.05 | grey",
            seed=3,
        )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    truth = json.loads((tmp_path / "a.png.json").read_text())
    assert truth["seed"] == 3 and truth["parameters"]["1.noise"]["sigma"] == pytest.approx(0.05)
    kernel = torch.tensor(truth["parameters"]["0.motion"]["kernel"])
    assert torch.allclose(kernel, Recipe.parse("motion:size=9").build(3).kernel()[0, 0], atol=1e-4)
    assert Picture.open(tmp_path / "a.png").grey and "true parameters" in capsys.readouterr().out
    with pytest.raises(InputError, match="same file"):
        degrade_command(
            tmp_path / "in.png",
            output=tmp_path / "c.png",
            operator="grey",
            record=tmp_path / "c.png",
        )
    assert not (tmp_path / "c.png").exists()
