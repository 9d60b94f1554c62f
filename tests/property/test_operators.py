"""What holds for any kernel, number or text."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pristina.errors import OperatorError, SettingError
from pristina.operators.convolve import centre, convolve, normalise
from pristina.operators.index import OPERATORS
from pristina.operators.kernels import motion_kernel
from pristina.operators.recipe import Recipe
from pristina.operators.unknown import Unknown, own_generator

torch.set_num_threads(1)
quick = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**40)


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=own_generator("test", seed), dtype=torch.float64)


@quick
@given(
    seed=seeds,
    n=st.integers(1, 3),
    k=st.integers(0, 3),
    boundary=st.sampled_from(["reflect", "circular", "zero"]),
)
def test_convolution_is_linear_and_keeps_the_brightness(
    seed: int, n: int, k: int, boundary: str
) -> None:
    x, kernel = (
        random(seed, n, 2, 9, 10),
        normalise(random(seed + 1, n, 1, 2 * k + 1, 2 * k + 1) + 0.01),
    )
    y = convolve(x, kernel, boundary)
    assert y.shape == x.shape
    torch.testing.assert_close(convolve(x, 2 * kernel, boundary), 2 * y)
    flat = convolve(torch.ones_like(x), kernel, boundary)
    if boundary == "zero":
        assert flat.max() <= 1 + 1e-9
    else:
        torch.testing.assert_close(flat, torch.ones_like(x))
    if boundary == "circular":
        torch.testing.assert_close(y.mean((2, 3)), x.mean((2, 3)))
        other = normalise(random(seed + 2, n, 1, 3, 3))
        torch.testing.assert_close(
            convolve(y, other, boundary), convolve(convolve(x, other, boundary), kernel, boundary)
        )


@quick
@given(seed=seeds, size=st.integers(1, 20).map(lambda k: 2 * k + 1), intensity=st.floats(0, 1))
def test_motion_kernels_are_kernels(seed: int, size: int, intensity: float) -> None:
    kernel = motion_kernel(size, intensity, own_generator("test", seed))
    assert kernel.shape == (1, 1, size, size)
    assert (
        torch.isfinite(kernel).all() and kernel.min() >= 0 and abs(float(kernel.sum()) - 1) < 1e-5
    )
    axis = torch.arange(size, dtype=kernel.dtype) - size // 2
    assert (
        abs(float((kernel * axis).sum())) < 0.2 and abs(float((kernel * axis[:, None]).sum())) < 0.2
    )
    assert torch.equal(kernel, motion_kernel(size, intensity, own_generator("test", seed)))


@quick
@given(seed=seeds, size=st.integers(1, 7).map(lambda k: 2 * k + 1))
def test_centred_kernels_are_centred(seed: int, size: int) -> None:
    kernel = torch.zeros(1, 1, 3 * size, 3 * size, dtype=torch.float64)
    at = torch.randint(0, 2 * size, (2,), generator=own_generator("test", seed)).tolist()
    kernel[..., at[0] : at[0] + size, at[1] : at[1] + size] = random(seed, 1, 1, size, size) + 0.1
    centred, _ = centre(kernel)
    assert (
        centre(centred)[1].abs().max() <= 1
    )  # what was pushed over the edge can move the centre again, by a fraction
    torch.testing.assert_close(centred.sum(), kernel.sum())


@quick
@given(value=st.floats(1e-3, 1e3), share=st.floats(1e-3, 1 - 1e-3))
def test_unknowns_come_back_as_they_went_in(value: float, share: float) -> None:
    torch.testing.assert_close(
        Unknown("a", value, "positive")(), torch.tensor([value]), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(
        Unknown("a", share, "share")(), torch.tensor([share]), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(
        Unknown("a", 100 * share, "share", limit=100)(),
        torch.tensor([100 * share]),
        rtol=1e-4,
        atol=0,
    )


words = st.one_of(
    st.sampled_from([*OPERATORS, "nothing"]), st.text(alphabet="abc:=,|. 01-", max_size=8)
)
arguments = st.one_of(
    st.just(""),
    st.text(alphabet=":=,|size0.1-{}", max_size=10),
    st.sampled_from(["sigma=2", "size=7", "factor=x", "gain=1e9", "sigma={1.6}", "factor={4}"]),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(words, arguments), min_size=1, max_size=3), st.integers(1, 512))
def test_any_text_is_an_operator_or_one_sentence(
    parts: list[tuple[str, str]], size_px: int
) -> None:
    text = "|".join(f"{word}:{rest}" if rest else word for word, rest in parts)
    try:
        recipe = Recipe.parse(text)
        assert Recipe.parse(str(recipe)) == recipe and recipe.at(64).at(96) == recipe.at(64)
        sentence = recipe.at(size_px).build().describe() + "."
    except (OperatorError, SettingError) as error:
        sentence = str(error)
    assert len(sentence) > 10 and sentence.endswith((".", "?")) and len(sentence) < 600
