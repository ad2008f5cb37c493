"""silu(gate) * value, forward and backward, each in one pass over memory."""

import math

import numpy as np
from numba import types

from lmray.native.compiled import helper, kernel
from lmray.native.lanes import (
    ADDRESS,
    WIDTH,
    exp2,
    load,
    load_first,
    repeat,
    store,
    store_first,
)

_ZERO, _ONE = np.float32(0), np.float32(1)
_MINUS_LOG2_E = np.float32(-1 / math.log(2))
_SIZES = (types.int64, types.int64)


@helper
def _sigmoid(x):
    return repeat(_ONE) / (repeat(_ONE) + exp2(x * repeat(_MINUS_LOG2_E)))


@helper
def _silu(x):
    return x * _sigmoid(x)


@helper
def _silu_slope(x):
    sigmoid = _sigmoid(x)
    return sigmoid * (repeat(_ONE) + x * (repeat(_ONE) - sigmoid))


@kernel(types.void(ADDRESS, ADDRESS, ADDRESS, *_SIZES))
def gate(gates, values, out, first, last):
    """out[first:last] of arrays of one shape."""
    whole = last - (last - first) % WIDTH
    for i in range(first, whole, WIDTH):
        store(out, i, _silu(load(gates, i)) * load(values, i))
    rest = last - whole
    gated = _silu(load_first(gates, whole, rest, _ZERO))
    store_first(out, whole, gated * load_first(values, whole, rest, _ZERO), rest)


@kernel(types.void(ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, *_SIZES))
def gate_backward(grad, gates, values, grad_gates, grad_values, first, last):
    """The gradients' [first:last], of which grad * silu(gate) is the value's."""
    whole = last - (last - first) % WIDTH
    for i in range(first, whole, WIDTH):
        x, slope = load(gates, i), load(grad, i)
        store(grad_values, i, slope * _silu(x))
        store(grad_gates, i, slope * load(values, i) * _silu_slope(x))
    rest = last - whole
    x, slope = load_first(gates, whole, rest, _ZERO), load_first(grad, whole, rest, _ZERO)
    store_first(grad_values, whole, slope * _silu(x), rest)
    value = load_first(values, whole, rest, _ZERO)
    store_first(grad_gates, whole, slope * value * _silu_slope(x), rest)
