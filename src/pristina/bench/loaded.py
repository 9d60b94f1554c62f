"""A suite with its pictures and its weights in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from pristina.bench import keys
from pristina.bench.cells import Cell
from pristina.bench.degradation import Handed, degrade, form_of
from pristina.bench.pictures import load_pictures, picture_size
from pristina.bench.suite import Row, Suite, Task
from pristina.errors import CheckpointError, InputError
from pristina.files import digest
from pristina.methods.index import method
from pristina.operators.base import Operator
from pristina.planning import Plan, make_plan
from pristina.priors.base import Prior
from pristina.priors.load import load_prior, load_weights
from pristina.priors.network import BATCHES, compile_network
from pristina.request import Request, plain
from pristina.settings import Settings

SHOWN = 4
"""Number of pictures that a cell of the first seed keeps for the report."""


@dataclass(frozen=True)
class LoadedSuite:
    """A suite with its pictures and its weights in memory.

    Attributes:
        suite: The suite, without lengths in braces.
        prior: The suite's prior.
        prior_name: Its name.
        names: Names of the clean pictures.
        truth: Clean pictures, (N, C, H, W), in [0, 1].
        compiled: Whether the network of the prior is compiled.
        cache: Weights of rows, and digests, each made once.
    """

    suite: Suite
    prior: Prior
    prior_name: str
    names: tuple[str, ...]
    truth: Tensor
    compiled: bool = False
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def load(
        cls,
        suite: Suite,
        prior: Prior | None = None,
        device: str | torch.device = "cpu",
        *,
        compiled: bool = False,
    ) -> LoadedSuite:
        """Load the pictures and the prior of a suite.

        Args:
            suite: The suite.
            prior: Prior in place of the suite's.
            device: Device of the computation.
            compiled: Whether the network of the prior is to be compiled.

        Raises:
            InputError: The pictures cannot be had, or a recipe cannot be read.
            CheckpointError: The prior cannot be loaded.
        """
        name = suite.prior if prior is None else type(prior).__name__
        prior = load_prior(suite.prior if prior is None else prior, device=device)
        size_px = picture_size(suite.pictures, prior)
        names, truth = load_pictures(suite.pictures, size_px)
        if prior.channels == 1:
            truth = truth.mean(1, keepdim=True)
        return cls(suite.at(size_px), prior, name, tuple(names), truth.to(prior.device), compiled)

    def to(self, device: str | torch.device) -> LoadedSuite:
        """Return the suite on another device, with nothing in its cache."""
        return replace(self, prior=self.prior.to(device), truth=self.truth.to(device), cache={})

    def compile(self) -> None:
        """Compile the network of the prior, if it is to be.

        It is called for every batch size once, so that the seconds of no cell hold the compiler's.
        """
        if not self.compiled:
            return
        compile_network(self.prior)
        with torch.no_grad():
            for batch in BATCHES:
                x = torch.zeros(batch, *self.truth.shape[1:], device=self.prior.device)
                self.prior.predict(x, 500)

    @property
    def prior_in_words(self) -> str:
        """The suite's prior in words."""
        return f"{self.prior_name}: {self.prior.domain} (sha256 {self.digest(self.prior)[:12]})"

    def shown(self, cell: Cell) -> int:
        """Return the number of pictures that a cell keeps for the report."""
        return SHOWN if cell.seed == self.suite.seeds[0] else 0

    def digest(self, thing: Tensor | torch.nn.Module) -> str:
        """Return the digest of weights or pictures that are kept here."""
        found: str = self._cached(("digest", id(thing)), lambda: digest(thing))
        return found

    def weights(self, row: Row) -> Any:
        """Return the weights of a row; None if its method has none.

        Raises:
            CheckpointError: They cannot be loaded.
        """
        entry = row.entry
        if entry is None or entry.prior == "none":
            return None
        if entry.prior == "diffusion" and row.prior is None:
            return self.prior
        return self._load(entry.prior, row.prior or self.suite.prior)

    def _load(self, kind: Any, source: str) -> Any:
        """Load weights once."""
        return self._cached(
            (kind, source), lambda: load_weights(kind, source, device=self.prior.device)
        )

    def _cached(self, key: Any, make: Any) -> Any:
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]

    def plan(self, cell: Cell, handed: Handed) -> Plan:
        """Plan the restoration of a batch.

        Raises:
            PristinaError: The method cannot take the batch.
        """
        row = cell.row
        request = Request(
            row.method,
            row.prior or self.suite.prior,
            preset=row.preset,
            settings=dict(row.settings),
            seed=cell.seed,
            device=str(self.prior.device),
        )
        height, width = handed.images.shape[-2:]
        return make_plan(
            request,
            (height, width),
            weights=self.weights(row),
            operator=handed.operator,
            settings=cell.settings,
            known_sigma=handed.sigma,
        )

    def cells(self) -> list[Cell]:
        """Return every cell of the suite, with its key.

        Raises:
            SettingError: A method or one of its settings is unknown.
            InputError: The degradation of a task cannot be done to these pictures.
        """
        return [
            cell
            for seed in self.suite.seeds
            for task in self.suite.tasks
            for cell in self._cells(task, seed)
        ]

    def _cells(self, task: Task, seed: int) -> Iterator[Cell]:
        rows = [row for row in self.suite.rows if not row.tasks or task.name in row.tasks]
        try:
            degraded = degrade(task, self.truth, seed)
            has_form = [bool(row.form or task.form) for row in rows]
            forms = [
                form_of(task, row, seed) if has else None
                for row, has in zip(rows, has_form, strict=True)
            ]
        except InputError as error:
            raise InputError(
                f"{self.suite.name} cannot do {task.name} ({task.recipe}): {error}"
            ) from error
        observed, operator = digest(degraded.y, degraded.initial), degraded.operators[0]
        for row, form in zip(rows, forms, strict=True):
            settings = None if row.method == "input" else row.make_settings()
            cell = Cell(task, row, seed, row.given(), settings)
            yield replace(cell, key=self._key(cell, observed, [operator, form]))

    def _key(self, cell: Cell, observed: str, operators: Sequence[Operator | None]) -> str:
        """Return the digest of everything that the numbers of a cell depend on but the machine."""
        task, row, given = cell.task, cell.row, cell.given
        parts: dict[str, Any] = {
            "pristina": version("pristina"),
            "observed": observed,
            "truth": self.digest(self.truth),
            "batch": self.suite.batch,
            "lpips": "lpips" in self.suite.metrics,
            "shown": self.shown(cell),
        }
        modules, request = [operators[0]], Request(row.method, seed=cell.seed)
        roots = {*keys.ALWAYS}
        if cell.settings is not None:
            form = None
            if given.knowledge == "form":
                form, modules = row.form or task.form, [*operators]
            request = replace(request, recipe=form, settings=plain(asdict(cell.settings)))
            weights, parts["weights"] = self._weights_in_key(row, cell.settings)
            modules += weights
            roots.add(f"pristina.methods.{row.method}")
            parts |= {
                "knowledge": given.knowledge,
                "exact": task.recipe if given.knowledge == "exact" else None,
                "sigma": task.sigma if given.sigma else None,
                "oracle_stop": row.oracle_stop,
                "compiled": self.compiled and bool(weights),
            }
        parts["code"] = keys.code_of_cell(roots | keys.homes_of(*modules))
        return request.digest(parts)

    def _weights_in_key(self, row: Row, settings: Settings) -> tuple[list[Any], Any]:
        """Return the weights of a row, and what of them the numbers depend on."""
        extra = method(row.method).extra_weights
        named = [(kind, getattr(settings, name)) for name, kind in extra.items()]
        try:
            loaded = [self._load(kind, source) for kind, source in named if source is not None]
            used = [one for one in (self.weights(row), *loaded) if one is not None]
        except CheckpointError as error:
            return [], str(error)  # The cell will say so; the other rows go on.
        return used, [[self.digest(one), str(getattr(one, "dtype", ""))] for one in used]
