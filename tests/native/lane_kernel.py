"""What kernels do with lanes, as kernels of its own: for test_lanes.py."""

from numba import types

from lmray.native.compiled import kernel
from lmray.native.lanes import (
    exp2,
    keep_first,
    larger,
    largest,
    load,
    load_first,
    repeat,
    spread,
    store,
    store_first,
    total,
)

_NUMBERS = types.Array(types.float32, 1, "C")


@kernel(types.void(_NUMBERS, _NUMBERS))
def powers(x, out):
    """2^x of sixteen numbers."""
    store(out, 0, exp2(load(x, 0)))


@kernel(types.void(_NUMBERS, _NUMBERS, types.int64, types.float32))
def first(x, out, count, fill):
    """The first numbers of x with a fill; the same kept of a whole; the first alone."""
    store(out, 0, load_first(x, 0, count, fill))
    store(out, 16, keep_first(load(x, 0), count, fill))
    store_first(out, 32, load(x, 0), count)


@kernel(types.void(_NUMBERS, _NUMBERS, _NUMBERS))
def arithmetic(x, y, out):
    """Sums and so on, lane by lane, and over all lanes."""
    a, b = load(x, 0), load(y, 0)
    store(out, 0, a + b)
    store(out, 16, a - b)
    store(out, 32, a * b)
    store(out, 48, a / b)
    store(out, 64, larger(a, b))
    store(out, 80, repeat(total(a)))
    store(out, 96, repeat(largest(a)))
    store(out, 112, spread(x, 3))
