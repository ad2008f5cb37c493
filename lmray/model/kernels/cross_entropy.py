"""Cross-entropy of rows of logits, forward and backward; only the gradient is as large as they."""

import math

import numpy as np
from numba import types

from lmray.native.compiled import helper, kernel
from lmray.native.lanes import (
    ADDRESS,
    WIDTH,
    exp2,
    larger,
    largest,
    load,
    load_first,
    number,
    put,
    repeat,
    spread,
    store,
    store_first,
    total,
    whole_number,
)

_ZERO = np.float32(0)
_LOWEST = np.float32(-np.inf)
_LOG2_E = np.float32(1 / math.log(2))
_SIZES = (types.int64, types.int64, types.int64)


@helper
def _maximum(logits, at, width):
    whole = width - width % WIDTH
    maxima = load_first(logits, at + whole, width - whole, _LOWEST)
    for c in range(0, whole, WIDTH):
        maxima = larger(maxima, load(logits, at + c))
    return largest(maxima)


@kernel(types.void(ADDRESS, ADDRESS, ADDRESS, ADDRESS, *_SIZES))
def cross_entropy(logits, targets, losses, totals, width, first, last):
    """Of rows `first` to `last`: the loss, and the sum of exp(logits - their maximum)."""
    whole = width - width % WIDTH
    rest = width - whole
    scale = repeat(_LOG2_E)
    for row in range(first, last):
        at = row * width
        maximum = _maximum(logits, at, width)
        top = repeat(maximum)
        sums = exp2((load_first(logits, at + whole, rest, _LOWEST) - top) * scale)
        for c in range(0, whole, WIDTH):
            sums = sums + exp2((load(logits, at + c) - top) * scale)
        all_together = total(sums)
        put(totals, row, all_together)
        # The maximum is taken out of both, so that a loss is exact however large the logits are.
        put(
            losses,
            row,
            np.log(all_together) + (maximum - number(logits, at + whole_number(targets, row))),
        )


@kernel(types.void(ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, *_SIZES))
def cross_entropy_backward(grad, logits, targets, totals, grad_logits, width, first, last):
    """grad (softmax(logits) - onehot(target)) of rows `first` to `last`."""
    whole = width - width % WIDTH
    rest = width - whole
    scale = repeat(_LOG2_E)
    for row in range(first, last):
        at = row * width
        top, slope = repeat(_maximum(logits, at, width)), spread(grad, row) / spread(totals, row)
        for c in range(0, whole, WIDTH):
            power = exp2((load(logits, at + c) - top) * scale)
            store(grad_logits, at + c, power * slope)
        power = exp2((load_first(logits, at + whole, rest, _LOWEST) - top) * scale)
        store_first(grad_logits, at + whole, power * slope, rest)
        target = at + whole_number(targets, row)
        put(grad_logits, target, number(grad_logits, target) - number(grad, row))
