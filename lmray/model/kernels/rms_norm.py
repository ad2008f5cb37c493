"""RMS normalisation of rows, forward and backward, each in one pass over memory."""

import numpy as np
from numba import types

from lmray.native.compiled import kernel
from lmray.native.lanes import (
    ADDRESS,
    WIDTH,
    load,
    load_first,
    multiply_add,
    put,
    repeat,
    spread,
    store,
    store_first,
    total,
)

_ZERO, _ONE = np.float32(0), np.float32(1)
_SIZES = (types.int64, types.int64, types.int64)


@kernel(types.void(ADDRESS, ADDRESS, types.float64, ADDRESS, ADDRESS, ADDRESS, *_SIZES))
def normalise(x, gain, eps, normalised, scales, out, width, first, last):
    """Of rows `first` to `last` of x (rows, width): x / rms, the factor 1 / rms, x / rms * gain."""
    whole = width - width % WIDTH
    rest = width - whole
    for row in range(first, last):
        at = row * width
        squares = repeat(_ZERO)
        for c in range(0, whole, WIDTH):
            part = load(x, at + c)
            squares = multiply_add(part, part, squares)
        part = load_first(x, at + whole, rest, _ZERO)
        squares = multiply_add(part, part, squares)
        scale = _ONE / np.sqrt(total(squares) / np.float32(width) + np.float32(eps))
        put(scales, row, scale)
        factor = repeat(scale)
        for c in range(0, whole, WIDTH):
            part = load(x, at + c) * factor
            store(normalised, at + c, part)
            store(out, at + c, part * load(gain, c))
        part = load_first(x, at + whole, rest, _ZERO) * factor
        store_first(normalised, at + whole, part, rest)
        product = part * load_first(gain, whole, rest, _ZERO)
        store_first(out, at + whole, product, rest)


@kernel(types.void(ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, *_SIZES))
def normalise_backward(grad, normalised, scales, gain, grad_x, grad_gain, width, first, last):
    """The gradient of rows `first` to `last`; what they add to the gain's is added to it.

    With n = x s: dn = grad gain, dx = s (dn - n mean(n dn)), dgain = sum of grad n over the rows.
    """
    whole = width - width % WIDTH
    rest = width - whole
    for row in range(first, last):
        at = row * width
        products = repeat(_ZERO)
        for c in range(0, whole, WIDTH):
            product = load(grad, at + c) * load(normalised, at + c)
            store(grad_gain, c, load(grad_gain, c) + product)
            products = multiply_add(product, load(gain, c), products)
        product = load_first(grad, at + whole, rest, _ZERO) * load_first(
            normalised, at + whole, rest, _ZERO
        )
        sums = load_first(grad_gain, whole, rest, _ZERO) + product
        store_first(grad_gain, whole, sums, rest)
        products = multiply_add(product, load_first(gain, whole, rest, _ZERO), products)
        mean = repeat(total(products) / np.float32(width))
        scale = spread(scales, row)
        for c in range(0, whole, WIDTH):
            part = load(grad, at + c) * load(gain, c) - load(normalised, at + c) * mean
            store(grad_x, at + c, part * scale)
        part = load_first(grad, at + whole, rest, _ZERO) * load_first(gain, whole, rest, _ZERO)
        part = part - load_first(normalised, at + whole, rest, _ZERO) * mean
        store_first(grad_x, at + whole, part * scale, rest)
