"""AdamW's step in one pass over weights, gradients and moments."""

import numpy as np
from numba import types

from lmray.native.compiled import helper, kernel
from lmray.native.lanes import (
    WIDTH,
    load,
    load_first,
    multiply_add,
    repeat,
    root,
    store,
    store_first,
)

_ZERO = np.float32(0)
_TABLE = types.Array(types.int64, 2, "C", readonly=True)
_FACTORS = types.Array(types.float32, 2, "C", readonly=True)


@helper
def _mean(old, grad, new):
    return multiply_add(new, grad - old, old)


@helper
def _square(old, grad, kept, new):
    return multiply_add(new * grad, grad, old * kept)


@helper
def _moved(weight, mean, square, kept, rate, correction, eps):
    return weight * kept - rate * mean / (root(square) / correction + eps)


@kernel(
    types.void(
        _TABLE, _FACTORS, types.float64, types.float64, types.float64, types.float64,
        types.int64, types.int64,
    )
)  # fmt: skip
def update(tensors, factors, kept, beta1, beta2, eps, first, last):
    """Moves numbers `first` to `last` of all tensors, counted as if one lay behind the other.

    A row of `tensors` has the addresses of weight, gradient, mean and square and the number of the
    tensor's first; there is one more row, with the number of all. `factors` has for each tensor
    lr / (1 - beta1^t) and sqrt(1 - beta2^t); a weight is multiplied by `kept` before it is moved.
    """
    kept_lanes, eps_lanes = repeat(np.float32(kept)), repeat(np.float32(eps))
    new1, old2, new2 = (
        repeat(np.float32(1 - beta1)),
        repeat(np.float32(beta2)),
        repeat(np.float32(1 - beta2)),
    )
    for i in range(len(tensors) - 1):
        begin = max(first - tensors[i, 4], 0)
        end = min(last, tensors[i + 1, 4]) - tensors[i, 4]
        if begin >= end:
            continue
        weight, grad, mean, square = tensors[i, 0], tensors[i, 1], tensors[i, 2], tensors[i, 3]
        rate, correction = repeat(factors[i, 0]), repeat(factors[i, 1])
        whole = end - (end - begin) % WIDTH
        for at in range(begin, whole, WIDTH):
            slope = load(grad, at)
            m, v = _mean(load(mean, at), slope, new1), _square(load(square, at), slope, old2, new2)
            store(mean, at, m)
            store(square, at, v)
            moved = _moved(load(weight, at), m, v, kept_lanes, rate, correction, eps_lanes)
            store(weight, at, moved)
        rest = end - whole
        slope = load_first(grad, whole, rest, _ZERO)
        m = _mean(load_first(mean, whole, rest, _ZERO), slope, new1)
        v = _square(load_first(square, whole, rest, _ZERO), slope, old2, new2)
        store_first(mean, whole, m, rest)
        store_first(square, whole, v, rest)
        moved = _moved(
            load_first(weight, whole, rest, _ZERO), m, v, kept_lanes, rate, correction, eps_lanes
        )
        store_first(weight, whole, moved, rest)
