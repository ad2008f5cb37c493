"""Where each pair of neighbouring tokens occurs: the index of bytes, and making it smaller."""

from typing import Any

import numpy as np
from numba import types

from lmray.native.compiled import helper, kernel
from lmray.tokenizer.kernels.compiled import load8
from lmray.tokenizer.kernels.learning import (
    COUNTS,
    EMPTY,
    LEARNING,
    NONE,
    NUM_PAIRS,
    NUM_TOKENS,
)
from lmray.tokenizer.kernels.queue import clear, enqueue

_BYTE_PAIRS = 1 << 16


@helper
def add_pair(left: int, right: int, count: int, number: int, learning: Any) -> int:
    """A new pair with room for `number` postings."""
    pairs, pair = learning.pairs, learning.state[NUM_PAIRS]
    learning.state[NUM_PAIRS] += 1
    pairs[pair].left, pairs[pair].right, pairs[pair].count = left, right, count
    pairs[pair + 1].start = pairs[pair].start + number
    return pair


@kernel(types.void(LEARNING, COUNTS, types.int32[::1]), allocates=True)
def index_bytes(learning: Any, ends: Any, byte_tokens: Any) -> None:
    """Fills the arrays with bytes as tokens, byte_tokens[byte] being its id.

    The pairs have room for 65,536, the postings for all neighbours.
    """
    cells, tokens, pairs = learning.cells, learning.tokens, learning.pairs
    numbers = np.zeros(_BYTE_PAIRS, dtype=np.int64)
    counts = np.zeros(_BYTE_PAIRS, dtype=np.int64)
    cells[0].token, cell, start = EMPTY, 0, 0
    for pretoken in range(ends.size):
        left, count = EMPTY, learning.counts[pretoken]
        for place in range(start, ends[pretoken]):
            right = np.int64(byte_tokens[load8(learning.data, place)])
            tokens[right].place = place
            cell += 1
            cells[cell].token, cells[cell].pretoken = right, pretoken
            if left != EMPTY:
                numbers[left << 8 | right] += 1
                counts[left << 8 | right] += count
            left = right
        start = ends[pretoken]
        cell += 1
        cells[cell].token = EMPTY
    for byte in range(256):
        token = byte_tokens[byte]
        tokens[token].length = 1
        tokens[token].prefix = np.uint64(byte) << np.uint64(56)
    learning.state[NUM_TOKENS], learning.state[NUM_PAIRS] = 256, 0
    clear(learning)
    ids = np.empty(_BYTE_PAIRS, dtype=np.int64)
    pairs[0].start = 0
    for pair in range(_BYTE_PAIRS):
        if numbers[pair] > 0:
            ids[pair] = add_pair(pair >> 8, pair & 255, counts[pair], numbers[pair], learning)
            numbers[pair] = pairs[ids[pair]].start
            enqueue(ids[pair], learning)
    for cell in range(cells.size - 1):
        left, right = np.int64(cells[cell].token), np.int64(cells[cell + 1].token)
        cells[cell].pair = NONE
        if left != EMPTY and right != EMPTY:
            pair = left << 8 | right
            cells[cell].pair = ids[pair]
            learning.postings[numbers[pair]] = cell
            numbers[pair] += 1


@kernel(types.void(LEARNING))
def compact(learning: Any) -> None:
    """Drops pairs and postings that are gone; the others keep their order."""
    cells, postings, pairs = learning.cells, learning.postings, learning.pairs
    number, end = learning.state[NUM_PAIRS], np.int64(0)
    learning.state[NUM_PAIRS] = 0
    clear(learning)
    for old in range(number):
        begin, end = end, pairs[old + 1].start
        if pairs[old].count == 0:
            continue
        pair = learning.state[NUM_PAIRS]
        kept = pairs[pair].start
        for posting in range(begin, end):
            cell = postings[posting]
            if cells[cell].pair == old:
                cells[cell].pair = pair
                postings[kept] = cell
                kept += 1
        left, right, count = pairs[old].left, pairs[old].right, pairs[old].count
        enqueue(add_pair(left, right, count, kept - pairs[pair].start, learning), learning)
