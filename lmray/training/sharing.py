"""A batch shared out among a CPU's threads, each of which computes sequences of its own.

torch would share out every operation instead and wait after each for the slowest thread: a step of
the tiny preset then takes 1.15 times as long (2 threads, 2026-11).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

import torch
from torch import Tensor

SHARES = 2
"""Parts of a batch. Each needs gradients of its own, so more would cost the weights' memory."""

Loss = Callable[[slice], Tensor]
"""What these sequences of a batch contribute to its loss."""


class SharedBackward:
    """Adds gradients as `loss(rows).backward()` does, half of the sequences in each of two threads.

    The halves' gradients are summed in one order, so they are the same bits every time, and differ
    from those of the whole by the rounding of a sum.
    """

    def __init__(self, weights: list[Tensor], threads: int) -> None:
        """`threads` of torch's, of which each half has half; the caller keeps all of them."""
        self._weights = weights
        self._pool = ThreadPoolExecutor(SHARES, thread_name_prefix="lmray-share")
        started = Barrier(SHARES)

        def start(_: int) -> None:
            torch.get_num_threads()  # a thread's first call of torch sets the number for all
            torch.set_num_threads(threads // SHARES)
            started.wait()  # or one thread would start twice

        list(self._pool.map(start, range(SHARES)))
        # The number is a thread's own, but threads to come begin with the one that was set last.
        torch.set_num_threads(threads)

    def __call__(self, loss: Loss, rows: slice) -> Tensor:
        """The loss of these rows, whose gradients the weights' now have as well."""
        if rows.stop - rows.start < SHARES:
            return backward(loss, rows)
        (first, gradients), (second, others) = self._pool.map(
            lambda half: self._gradients(loss, half), _halves(rows)
        )
        with between_halves():
            for weight, *parts in zip(self._weights, gradients, others, strict=True):
                for part in parts:
                    if part is None:  # no part of the loss
                        continue
                    weight.grad = part if weight.grad is None else weight.grad.add_(part)
            return first + second

    def in_turn(self, loss: Loss, rows: slice) -> None:
        """Computes one half after the other and keeps nothing: the first call of a compiled `loss`.

        torch compiles for the number of threads of who calls, so it has to be these; both at once
        would compile the same twice.
        """
        if rows.stop - rows.start < SHARES:
            backward(loss, rows)
            return
        for half in _halves(rows):
            self._pool.submit(self._gradients, loss, half).result()

    def _gradients(self, loss: Loss, rows: slice) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        share = loss(rows)
        return share.detach(), torch.autograd.grad(share, self._weights, allow_unused=True)


@contextmanager
def between_halves() -> Iterator[None]:
    """Within the block torch computes with as many threads as a half has, for what is soon done.

    More would look for work for milliseconds after the block (GNU's OpenMP has them spin), on the
    cores of the halves that begin there: 4 % of a step of the tiny preset (2 threads, 2026-11).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // SHARES))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _halves(rows: slice) -> tuple[slice, slice]:
    middle = (rows.start + rows.stop) // 2
    return slice(rows.start, middle), slice(middle, rows.stop)


def backward(loss: Loss, rows: slice) -> Tensor:
    """The loss of these rows, whose gradients the weights' now have as well: in this thread."""
    share = loss(rows)
    share.backward()
    return share.detach()
