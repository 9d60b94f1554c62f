"""A function over many items, in this process or in several."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from pristina.errors import PristinaError, SettingError

Context = TypeVar("Context")
Item = TypeVar("Item")
Output = TypeVar("Output")

TRIES_ALONE = 2
"""Times that an item is tried alone after the death of a worker that may have worked on it."""


class WorkerDied(PristinaError):
    """A worker process died whenever it worked on an item."""


class Pool(Generic[Context]):
    """Workers that apply a function to items, with a context that each of them prepares once.

    ``map`` is the whole interface, and neither its arguments nor its results depend on where the
    workers run; a pool on a cluster has the same method. The function, the items and the results
    must be picklable; they may be defined in a script or a notebook.

    Args:
        workers: Number of processes; 1 works in this process.
        setup: Function that a worker calls once before its first item; its result is the first
            argument of the mapped function.
        threads: Processor threads of each worker; 0 gives each of several workers an equal share,
            and leaves a single one as it is.

    Example:
        >>> pool = Pool(1, setup=lambda: 10)
        >>> list(pool.map(lambda context, item: context + item, [1, 2]))
        [(1, 11), (2, 12)]
    """

    def __init__(self, workers: int, setup: Callable[[], Context], threads: int = 0):
        if workers < 1 or threads < 0:
            raise SettingError(
                "A pool needs at least 1 worker and no negative number of threads, "
                f"not {workers} and {threads}."
            )
        self.workers, self.setup = workers, setup
        if workers > 1 and not threads:
            threads = max(1, (os.cpu_count() or 1) // workers)
        self.threads = threads

    def map(
        self, function: Callable[[Context, Item], Output], items: Sequence[Item]
    ) -> Iterator[tuple[Item, Output | Exception]]:
        """Apply a function to every item.

        A worker that dies is replaced and its item tried again; an interruption or the death of
        this process ends the workers.

        Args:
            function: Function of the context and an item.
            items: Items, in any order.

        Yields:
            Every item with the function's result, or with the exception that it raised, as they
            finish.
        """
        if not items:
            return
        if self.workers == 1:
            yield from self._map_here(function, items)
        else:
            yield from self._map_in_processes(function, items)

    def _map_here(
        self, function: Callable[[Context, Item], Output], items: Sequence[Item]
    ) -> Iterator[tuple[Item, Output | Exception]]:
        _set_threads(self.threads)
        context = self.setup()
        for item in items:
            try:
                output: Output | Exception = function(context, item)
            except Exception as error:
                output = error
            yield item, output

    def _map_in_processes(
        self, function: Callable[[Context, Item], Output], items: Sequence[Item]
    ) -> Iterator[tuple[Item, Output | Exception]]:
        waiting = list(range(len(items)))
        while waiting:
            left, at_work = set(waiting), set[int]()
            for i, output in self._run(function, items, waiting, at_work):
                left.remove(i)
                yield items[i], output
            # A worker has died: what was at work is tried alone, so that an item that ends its
            # worker takes no other with it.
            for i in sorted(at_work):
                yield items[i], self._run_alone(function, items, i)
            waiting = sorted(left - at_work)

    def _run_alone(
        self, function: Callable[[Context, Item], Output], items: Sequence[Item], i: int
    ) -> Output | Exception:
        """Run one item in a process of its own."""
        for _ in range(TRIES_ALONE):
            for _, output in self._run(function, items, [i], set()):
                return output
        return WorkerDied(
            "The process that worked on it died, however often it was tried; it may have been "
            "killed for want of memory: take fewer jobs or smaller batches."
        )

    def _run(
        self,
        function: Callable[[Context, Item], Output],
        items: Sequence[Item],
        indices: Sequence[int],
        at_work: set[int],
    ) -> Iterator[tuple[int, Output | Exception]]:
        """Yield what finishes in new processes, until all is done or a process dies.

        Args:
            function: Function of the context and an item.
            items: All items.
            indices: Places of the items to work on.
            at_work: Set to which the places are added that a dead process may have worked on.
        """
        from joblib.externals.loky import BrokenProcessPool, as_completed

        size = min(self.workers, len(indices))
        futures: dict[Any, int] = {}
        finished: set[int] = set()
        with self._processes(size) as executor:
            try:
                for i in indices:
                    futures[executor.submit(_call, function, items[i])] = i
                for future in as_completed(futures):
                    output = _outcome(future.exception()) or future.result()
                    finished.add(futures[future])
                    yield futures[future], output
            except BrokenProcessPool:
                # Items are started in order, and the last results may not have arrived.
                unfinished = [i for i in indices if i not in finished]
                at_work.update(unfinished[: 2 * size])

    @contextmanager
    def _processes(self, size: int) -> Iterator[Any]:
        from joblib.externals.loky import ProcessPoolExecutor

        executor = ProcessPoolExecutor(
            size,
            initializer=_begin,
            initargs=(self.setup, self.threads, os.getpid()),
            env={"OMP_NUM_THREADS": str(self.threads)},
        )
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=True, kill_workers=True)  # Nothing should run on.
            raise
        executor.shutdown(wait=True)


class _SetupFailed(Exception):
    """The context of a worker could not be prepared; the first argument is the reason."""


_setup: Callable[[], Any]
_threads: int
_context: Any = None  # Of a worker process, made before its first item.


def _begin(setup: Callable[[], Any], threads: int, parent: int) -> None:
    global _setup, _threads
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent ends this process.
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    _setup, _threads = setup, threads


def _call(function: Callable[[Any, Item], Output], item: Item) -> Output:
    global _context
    if _context is None:
        try:
            _context = (_setup(),)
        except Exception as error:
            raise _SetupFailed(error) from error
        if "torch" in sys.modules:  # Importing it takes seconds, and not every function needs it.
            _set_threads(_threads)
    return function(_context[0], item)


def _outcome(error: BaseException | None) -> Exception | None:
    """Return the exception of an item; raise what does not belong to an item alone."""
    from joblib.externals.loky import BrokenProcessPool

    if isinstance(error, _SetupFailed):
        raise error.args[0]
    if error is None or (isinstance(error, Exception) and not isinstance(error, BrokenProcessPool)):
        return error
    raise error


def _end_with_parent(parent: int, every_s: float = 0.5) -> None:
    """End this process when its parent is gone, which may have been killed."""
    while os.getppid() == parent:
        time.sleep(every_s)
    os._exit(1)


def _set_threads(threads: int) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)
