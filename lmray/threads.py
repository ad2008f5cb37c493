"""Threads: how many, results in order where work releases the interpreter's lock, repetition."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, TypeVar

from lmray.errors import UsageError
from lmray.machine import available_cores

Threads = int | Literal["all"]
"""A number of threads, or one for each core."""

_AHEAD = 2
"""Results a thread may be ahead of what is taken: enough that none waits, few enough to hold."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def resolve(num_threads: Threads) -> int:
    """The number itself; UsageError if it is below 1."""
    number = available_cores() if num_threads == "all" else num_threads
    if number < 1:
        raise UsageError(f'num_threads={number} is not positive; give at least 1, or "all"')
    return number


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_threads: int
) -> Iterator[Result]:
    """The result for each item, in the order of the items, made by threads or, if 1, right here.

    Lazy: no more than a few results per thread wait to be taken. What a thread raises comes up in
    its result's place; items after it are not begun.
    """
    if num_threads == 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == _AHEAD * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def repeating(act: Callable[[], None], *, every_s: float) -> Iterator[None]:
    """Lets a thread act every so many seconds, and once more when the block has ended."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_s):
            act()
        act()

    thread = threading.Thread(target=repeat, name="lmray-repeating", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
