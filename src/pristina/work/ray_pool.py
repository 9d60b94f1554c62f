"""A function over many items on a cluster, with Ray."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from pristina.errors import MissingExtra, PristinaError, SettingError
from pristina.work.pool import WorkerDied

Context = TypeVar("Context")
Item = TypeVar("Item")
Output = TypeVar("Output")

LOCAL = "local"
"""Address that starts a cluster on this machine, for the time of the work."""
CONNECT_S = 10
"""Time after which a cluster that does not answer is taken to be none, in seconds."""
TRIES = 3
"""Times that an item is begun whose worker dies."""


class RayPool(Generic[Context]):
    """Workers on a cluster, with the interface of :class:`~pristina.work.pool.Pool`.

    Each worker is an actor that prepares the context once and keeps it. Workers join when the
    cluster has room for them, so that a cluster that grows by itself is used as it grows. A worker
    that dies is replaced, and its item is done again.

    Args:
        address: Address of a cluster, ``auto`` for the one that this machine belongs to, or
            ``local`` for one of this machine alone.
        workers: Number of workers; None takes one for each GPU of the cluster if ``gpus``, else one
            for each of its machines.
        setup: Function that a worker calls once before its first item; its result is the first
            argument of the mapped function.
        threads: Processor threads of each worker; 0 gives each its share of one machine.
        gpus: Number of GPUs of each worker, if the cluster has any; it may be a fraction.

    Raises:
        MissingExtra: Ray is not installed.
        SettingError: The cluster cannot be reached.
        PristinaError: One of this machine alone does not start.
    """

    def __init__(
        self,
        address: str,
        workers: int | None,
        setup: Callable[[], Context],
        *,
        threads: int = 0,
        gpus: float = 0,
    ):
        if workers is not None and workers < 1:
            raise SettingError(f"A pool needs at least 1 worker, not {workers}.")
        self.address, self.workers, self.setup = address, workers, setup
        self.threads, self.gpus = threads, gpus
        self.ray = _import_ray()

    def map(
        self,
        function: Callable[[Context, Any], Output],
        items: Sequence[Item],
        send: Callable[[Item], Any] = lambda item: item,
    ) -> Iterator[tuple[Item, Output | Exception]]:
        """Apply a function to every item.

        Args:
            function: Function of the context and of what ``send`` returns.
            items: Items, in any order.
            send: Function that is called here with an item just before a worker begins with it,
                such as one that reads a file which the workers cannot see.

        Yields:
            Every item with the function's result, or with the exception that it or ``send`` raised,
            as they finish.
        """
        if not items:
            return
        self._connect()
        try:
            yield from self._map(function, items, send)
        finally:
            self.ray.shutdown()

    def _connect(self) -> None:
        local = self.address == LOCAL
        if local:  # Workers have the priority of the command, and not the lowest one.
            os.environ.setdefault("RAY_worker_niceness", "0")
        options: dict[str, Any] = {"include_dashboard": False} if local else {}
        if local and self.workers is not None:
            options["num_cpus"] = max(self.workers, os.cpu_count() or 1)
        try:
            _check_reachable(self.address)
            self.ray.init(self.address, logging_level="error", log_to_driver=False, **options)
        except Exception as error:  # Ray raises all kinds, a bare one where it is too slow.
            self.ray.shutdown()
            if local:
                raise PristinaError(
                    f"Ray did not start on this machine: {str(error).rstrip('.')}. Give the same "
                    "command again, or leave --ray out."
                ) from error
            raise SettingError(
                f"There is no Ray cluster at {self.address}: start one (ray start --head), or take "
                f"'{LOCAL}' for this machine alone."
            ) from error

    def _map(
        self,
        function: Callable[[Context, Any], Output],
        items: Sequence[Item],
        send: Callable[[Item], Any],
    ) -> Iterator[tuple[Item, Output | Exception]]:
        n_gpus = self.ray.cluster_resources().get("GPU", 0)
        self.gpus = self.gpus if n_gpus else 0
        n_nodes = sum(node["Alive"] for node in self.ray.nodes())
        n = min(self.workers or (int(n_gpus / self.gpus) if self.gpus else n_nodes), len(items))
        waiting, tries = list(reversed(range(len(items)))), dict[int, int]()
        left = len(items)
        # What each answer is about: the worker, and its item or None where it has only begun.
        at_work: dict[Any, tuple[Any, int | None]] = {}
        for _ in range(n):
            self._start(at_work, n)
        while left:
            (answer,), _ = self.ray.wait(list(at_work))
            worker, i = at_work.pop(answer)
            output: Any = None
            try:
                output = self.ray.get(answer)
            except (self.ray.exceptions.RayActorError, self.ray.exceptions.RayTaskError) as error:
                if isinstance(error, self.ray.exceptions.RayTaskError):
                    raise PristinaError(f"The workers cannot run: {error.cause}") from error
                self._start(at_work, n)
                if i is not None and tries[i] < TRIES:
                    waiting.append(i)
                elif i is not None:
                    left -= 1
                    yield (
                        items[i],
                        WorkerDied(
                            "The worker that had it died, however often it was tried; it may have "
                            "been killed for want of memory."
                        ),
                    )
                continue
            if isinstance(output, _SetupError):
                raise output.error
            while waiting:
                following = waiting.pop()
                tries[following] = tries.get(following, 0) + 1
                try:
                    sent = send(items[following])
                except Exception as error:
                    left -= 1
                    yield items[following], error
                    continue
                at_work[worker.call.remote(function, sent)] = worker, following
                break
            if i is not None:
                left -= 1
                yield items[i], output

    def _start(self, at_work: dict[Any, tuple[Any, int | None]], n: int) -> None:
        """Start a worker; its first answer says that it is ready."""
        options = {"num_cpus": 1, "num_gpus": self.gpus, "max_restarts": 0}
        worker = self.ray.remote(**options)(_Worker).remote(self.setup, self.threads, n)
        at_work[worker.ready.remote()] = worker, None


class _SetupError:
    """Why a worker could not prepare its context."""

    def __init__(self, error: Exception):
        self.error = error


class _Worker:
    """An actor: it keeps its context from item to item."""

    def __init__(self, setup: Callable[[], Any], threads: int, n_workers: int):
        import torch

        torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // n_workers))
        self.setup = setup

    def ready(self) -> _SetupError | None:
        """Prepare the context."""
        try:
            self.context = self.setup()
        except Exception as error:
            return _SetupError(error)
        return None

    def call(self, function: Callable[[Any, Any], Any], item: Any) -> Any:
        """Return the function's result, or the exception that it raised."""
        try:
            return function(self.context, item)
        except Exception as error:
            return error


def _check_reachable(address: str) -> None:
    """Raise :class:`OSError` if nobody listens at HOST:PORT; Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "/" not in address and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Nothing is told to anybody.
    with suppress(ImportError):
        import ray
        import ray.exceptions

        return ray
    raise MissingExtra("A cluster needs Ray: pip install 'pristina[cluster]'.")
