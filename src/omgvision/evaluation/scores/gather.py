"""A metric over many files, in several processes when that pays."""

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress

from omgvision.evaluation.metric import PerSample

MetricT = TypeVar("MetricT", bound=PerSample[Any])
Item = TypeVar("Item")
Result = TypeVar("Result")

ITEMS_A_PROCESS = 250
"""Images: fewer are done before a process has started (it imports torch: about four seconds)."""


def gather(
    metric: MetricT,
    update: Callable[[MetricT, Item], None],
    items: Sequence[Item],
    *,
    workers: int,
    title: str,
    items_a_process: int | None = None,
) -> None:
    """Calls `update(metric, item)` for every item, with a progress bar on stderr if that is a terminal.

    Args:
        metric: Receives the records. Pickled for the processes.
        update: Reads the files of an item and updates the metric. Pickled: a function of a module or a `partial` of it.
        items: What to read (paths, entries of a json), pickled as well.
        workers: At most so many processes; fewer when there is little to do, and none besides this one below 2.
        items_a_process: How many items are worth a process; None = `ITEMS_A_PROCESS`, for images.

    Raises:
        ValueError: Of `update`, as it was raised.
    """
    processes = _processes(items, workers=workers, items_a_process=items_a_process)
    target = metric if processes < 2 else copy.copy(metric)
    if target is not metric:
        target.records = {}
    for part in _share(partial(_update_all, target, update), items, processes=processes, title=title):
        if part is not metric:
            metric.merge(part)


def spread(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    title: str,
    items_a_process: int | None = None,
) -> Iterator[Result]:
    """`function(item)` of every item in their order, shared out and shown as by `gather`.

    For a metric that has to hold all of the ground truth, and is too large to be sent to every process.

    Raises:
        ValueError: Of `function`, as it was raised.
    """
    processes = _processes(items, workers=workers, items_a_process=items_a_process)
    for results in _share(partial(_call_all, function), items, processes=processes, title=title):
        yield from results


def _processes(items: Sequence[Any], *, workers: int, items_a_process: int | None) -> int:
    return min(workers, len(items) // (items_a_process or ITEMS_A_PROCESS))


def _share(
    function: Callable[[Sequence[Item]], Result], items: Sequence[Item], *, processes: int, title: str
) -> Iterator[Result]:
    """What `function` makes of parts of the items: of single ones in this process, below two processes."""
    size = 1 if processes < 2 else -(-len(items) // (8 * processes))
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=len(items))
        results = map(function, chunks) if processes < 2 else _pooled(function, chunks, processes=processes)
        for result, chunk in zip(results, chunks, strict=True):
            yield result
            progress.advance(bar, len(chunk))


def _pooled(
    function: Callable[[Sequence[Item]], Result], chunks: Sequence[Sequence[Item]], *, processes: int
) -> Iterator[Result]:
    with ProcessPoolExecutor(processes, mp_context=_context()) as pool:
        futures = [pool.submit(function, chunk) for chunk in chunks]
        try:
            for future in futures:
                yield future.result()
        except ValueError as error:  # raised again here, so that the command line knows it as ours
            raise ValueError(str(error)) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _update_all(metric: MetricT, update: Callable[[MetricT, Item], None], items: Sequence[Item]) -> MetricT:
    for item in items:
        update(metric, item)
    return metric


def _call_all(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]


def _context():
    """Processes without our threads: forked from a server that has imported torch once for all, or else spawned."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context
