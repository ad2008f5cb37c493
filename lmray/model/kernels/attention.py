"""Causal attention, forward and backward, without a matrix of scores in memory.

Scores are computed for a few queries at a time, for the keys up to theirs alone, and again in the
backward pass from the kept log-sum-exps (FlashAttention, Dao et al. 2022). torch's kernel for CPUs
computes what is masked as well, in contexts of up to 512.

Everything is per head. Four rows at a time are multiplied with sixteen columns, so that the eight
registers (of AVX2) of results are loaded and stored once. Exponentials are powers of two: `scale`
has the factor 1 / log 2, and log-sum-exps are of base 2.
"""

import numpy as np
from numba import types

from lmray.native.compiled import helper, kernel
from lmray.native.lanes import (
    ADDRESS,
    WIDTH,
    exp2,
    keep_first,
    larger,
    largest,
    load,
    multiply_add,
    number,
    put,
    repeat,
    spread,
    store,
    total,
)

_ROWS = 4
_BLOCK = 32
"""Queries whose weights are kept until they are added to the gradients of keys and values."""

_ZERO, _ONE, _LOWEST = np.float32(0), np.float32(1), np.float32(-np.inf)
_LAYOUT = types.UniTuple(types.int64, 9)
_SIZES = (types.int64,) * 6


@helper
def _copy(to, x, at, step, length, width):
    """Rows one behind the other."""
    for j in range(length):
        for c in range(0, width, WIDTH):
            store(to, j * width + c, load(x, at + j * step + c))


@helper
def _transpose(to, x, at, step, length, padded, width):
    """Columns one behind the other, each of `padded` numbers."""
    for j in range(length):
        for c in range(width):
            put(to, c * padded + j, number(x, at + j * step + c))


@helper
def _multiply(to, at, stride, rows, i, columns, count, padded, width):
    """Four rows from i on times the first `count` columns, and those up to a multiple of 16."""
    for j in range(0, count, WIDTH):
        sum0 = repeat(_ZERO)
        sum1, sum2, sum3 = sum0, sum0, sum0
        row = i * width
        for c in range(width):
            column = load(columns, c * padded + j)
            sum0 = multiply_add(spread(rows, row + c), column, sum0)
            sum1 = multiply_add(spread(rows, row + width + c), column, sum1)
            sum2 = multiply_add(spread(rows, row + 2 * width + c), column, sum2)
            sum3 = multiply_add(spread(rows, row + 3 * width + c), column, sum3)
        store(to, at + j, sum0)
        store(to, at + stride + j, sum1)
        store(to, at + 2 * stride + j, sum2)
        store(to, at + 3 * stride + j, sum3)


@helper
def _exponentials(scores, at, visible, count, scale):
    """Makes 2^(scale score - their maximum) of a row; returns the maximum and their sum."""
    maxima = repeat(_LOWEST)
    for j in range(0, count, WIDTH):
        score = keep_first(load(scores, at + j) * repeat(scale), visible - j, _LOWEST)
        store(scores, at + j, score)
        maxima = larger(maxima, score)
    maximum = largest(maxima)
    sums = repeat(_ZERO)
    for j in range(0, count, WIDTH):
        power = exp2(load(scores, at + j) - repeat(maximum))
        store(scores, at + j, power)
        sums = sums + power
    return maximum, total(sums)


@helper
def _weigh(to, at, step, rows, weights, start, stride, x, count, width):
    """Up to four rows: the sums of the first `count` rows of x times a row of weights."""
    for c in range(0, width, WIDTH):
        sum0 = repeat(_ZERO)
        sum1, sum2, sum3 = sum0, sum0, sum0
        for j in range(count):
            row = load(x, j * width + c)
            sum0 = multiply_add(spread(weights, start + j), row, sum0)
            sum1 = multiply_add(spread(weights, start + stride + j), row, sum1)
            sum2 = multiply_add(spread(weights, start + 2 * stride + j), row, sum2)
            sum3 = multiply_add(spread(weights, start + 3 * stride + j), row, sum3)
        if rows > 0:
            store(to, at + c, sum0)
        if rows > 1:
            store(to, at + step + c, sum1)
        if rows > 2:
            store(to, at + 2 * step + c, sum2)
        if rows > 3:
            store(to, at + 3 * step + c, sum3)


@helper
def _collect(to, weights, stride, x, first, last, width):
    """Adds to each row j what rows of x from `first` to `last` weigh in column j of the weights.

    A row's weights are 0 beyond its own number.
    """
    for j in range(0, last, _ROWS):
        for c in range(j * width, (j + 1) * width, WIDTH):
            sum0, sum1 = load(to, c), load(to, c + width)
            sum2, sum3 = load(to, c + 2 * width), load(to, c + 3 * width)
            for i in range(max(first, j), last):
                row = load(x, (i - j) * width + c)
                at = (i - first) * stride + j
                sum0 = multiply_add(spread(weights, at), row, sum0)
                sum1 = multiply_add(spread(weights, at + 1), row, sum1)
                sum2 = multiply_add(spread(weights, at + 2), row, sum2)
                sum3 = multiply_add(spread(weights, at + 3), row, sum3)
            store(to, c, sum0)
            store(to, c + width, sum1)
            store(to, c + 2 * width, sum2)
            store(to, c + 3 * width, sum3)


@kernel(
    types.void(ADDRESS, ADDRESS, ADDRESS, _LAYOUT, ADDRESS, ADDRESS, types.float64, *_SIZES),
    allocates=True,
)
def attend(q, k, v, layout, out, log_totals, scale, heads, kv_heads, length, width, first, last):
    """Fills out (B, T, H, K) and log_totals (B, H, T) for queries (B, H, T, K).

    `layout` has the strides of B, heads and T of q, of k and of v. `first` to `last` are numbers of
    heads of keys and values, over the whole batch; their queries' heads are neighbours.
    """
    scale = np.float32(scale)
    padded = (length + WIDTH - 1) // WIDTH * WIDTH
    columns = np.zeros(width * padded, np.float32)
    queries, values = np.zeros(padded * width, np.float32), np.zeros(padded * width, np.float32)
    scores, factors = np.zeros(_ROWS * padded, np.float32), np.zeros(_ROWS, np.float32)
    step = heads * width
    group = heads // kv_heads
    for kv in range(first, last):
        b, g = kv // kv_heads, kv % kv_heads
        _transpose(columns, k, b * layout[3] + g * layout[4], layout[5], length, padded, width)
        _copy(values, v, b * layout[6] + g * layout[7], layout[8], length, width)
        for h in range(g * group, (g + 1) * group):
            _copy(queries, q, b * layout[0] + h * layout[1], layout[2], length, width)
            for i in range(0, length, _ROWS):
                _multiply(scores, 0, padded, queries, i, columns, i + _ROWS, padded, width)
                rows = min(_ROWS, length - i)
                for r in range(_ROWS):
                    maximum, summed = _exponentials(scores, r * padded, i + r + 1, i + _ROWS, scale)
                    put(factors, r, _ONE / summed)
                    if r < rows:
                        place = (b * heads + h) * length + i + r
                        put(log_totals, place, maximum + np.log2(summed))
                to = ((b * length + i) * heads + h) * width
                _weigh(out, to, step, rows, scores, 0, padded, values, i + _ROWS, width)
                for r in range(rows):
                    factor = spread(factors, r)
                    for c in range(to + r * step, to + r * step + width, WIDTH):
                        store(out, c, load(out, c) * factor)


@kernel(
    types.void(
        ADDRESS, ADDRESS, ADDRESS, _LAYOUT, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS,
        types.float64, types.float64, *_SIZES,
    ),
    allocates=True,
)  # fmt: skip
def attend_backward(
    q, k, v, layout, out, log_totals, grad, grad_q, grad_k, grad_v,
    scale, plain_scale, heads, kv_heads, length, width, first, last,
):  # fmt: skip
    """Fills the gradients (B, T, heads, K) from that of the output, `grad` (B, T, H, K).

    `plain_scale` is without the factor 1 / log 2. With scores s = q k, P = 2^(scale s - log_total)
    and D = grad out summed over K: dv = P^T grad, ds = P (grad v - D), dq = ds k, dk = ds^T q.
    """
    scale, plain_scale = np.float32(scale), np.float32(plain_scale)
    padded = (length + WIDTH - 1) // WIDTH * WIDTH
    stride = padded + WIDTH  # not a power of two, whose columns would share few lines of the cache
    area = padded * width
    k_columns, v_columns = np.zeros(area, np.float32), np.zeros(area, np.float32)
    keys, queries, slopes = (
        np.zeros(area, np.float32),
        np.zeros(area, np.float32),
        np.zeros(area, np.float32),
    )
    for_keys, for_values = np.zeros(area, np.float32), np.zeros(area, np.float32)
    weights, changes = np.zeros(_BLOCK * stride, np.float32), np.zeros(_BLOCK * stride, np.float32)
    step = heads * width
    group = heads // kv_heads
    nothing = repeat(_ZERO)
    for kv in range(first, last):
        b, g = kv // kv_heads, kv % kv_heads
        at = b * layout[3] + g * layout[4]
        _transpose(k_columns, k, at, layout[5], length, padded, width)
        _copy(keys, k, at, layout[5], length, width)
        at = b * layout[6] + g * layout[7]
        _transpose(v_columns, v, at, layout[8], length, padded, width)
        for c in range(0, area, WIDTH):
            store(for_keys, c, nothing)
            store(for_values, c, nothing)
        for h in range(g * group, (g + 1) * group):
            _copy(queries, q, b * layout[0] + h * layout[1], layout[2], length, width)
            _copy(slopes, grad, (b * length * heads + h) * width, step, length, width)
            for block in range(0, padded, _BLOCK):
                end = min(block + _BLOCK, padded)
                for i in range(block, end, _ROWS):
                    at = (i - block) * stride
                    keys_seen = i + _ROWS
                    _multiply(weights, at, stride, queries, i, k_columns, keys_seen, padded, width)
                    _multiply(changes, at, stride, slopes, i, v_columns, keys_seen, padded, width)
                    rows = min(_ROWS, length - i)
                    to = ((b * length + i) * heads + h) * width
                    for r in range(_ROWS):
                        shared, log_total = nothing, nothing
                        if r < rows:
                            log_total = spread(log_totals, (b * heads + h) * length + i + r)
                            for c in range(0, width, WIDTH):
                                slope = load(slopes, (i + r) * width + c)
                                shared = multiply_add(load(out, to + r * step + c), slope, shared)
                            shared = repeat(total(shared))
                        for j in range(0, keys_seen, WIDTH):
                            here = at + r * stride + j
                            power = load(weights, here) * repeat(scale) - log_total
                            weight = exp2(keep_first(power, i + r + 1 - j, _LOWEST))
                            store(weights, here, weight)
                            store(changes, here, weight * (load(changes, here) - shared))
                    _weigh(grad_q, to, step, rows, changes, at, stride, keys, keys_seen, width)
                    for r in range(rows):
                        for c in range(to + r * step, to + r * step + width, WIDTH):
                            store(grad_q, c, load(grad_q, c) * repeat(plain_scale))
                _collect(for_keys, changes, stride, queries, block, end, width)
                _collect(for_values, weights, stride, slopes, block, end, width)
        for j in range(length):
            to = ((b * length + j) * kv_heads + g) * width
            for c in range(0, width, WIDTH):
                store(grad_k, to + c, load(for_keys, j * width + c) * repeat(plain_scale))
                store(grad_v, to + c, load(for_values, j * width + c))
