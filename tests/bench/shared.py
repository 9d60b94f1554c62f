"""The suite of these tests, and a prior for it that takes no time."""

from pathlib import Path

from pristina.bench.loaded import LoadedSuite
from pristina.priors.gaussian import GaussianPrior

SUITE = Path(__file__).parent / "suite.toml"


def tiny_prior():
    return GaussianPrior(0.0, 0.1)


def keys_of(suite, prior=None):
    return {c.title: c.key for c in LoadedSuite.load(suite, prior or tiny_prior()).cells()}
