"""Learning merges: the most frequent pair of neighbouring tokens becomes a token, over and over."""

from typing import Any

import numpy as np
from numba import types

from lmray.native.compiled import helper, kernel
from lmray.tokenizer.kernels.compiled import load8, prefetch
from lmray.tokenizer.kernels.learning import (
    EMPTY,
    LEARNING,
    NONE,
    NUM_PAIRS,
    NUM_TOKENS,
    PAIRS_WANTED,
    POSTINGS_WANTED,
)
from lmray.tokenizer.kernels.postings import add_pair
from lmray.tokenizer.kernels.queue import enqueue, first

PAUSED, LEARNT, NO_PAIR, NO_ROOM = range(4)
"""What `learn` returns: it did its share, or has all merges, or no pair is left, or there is no
room for what the next merge gives rise to: `compact`, or make room."""

_MERGE_WORK = 32
"""What a merge costs beside its occurrences, in occurrences."""

_AFTER = 1
"""A neighbour is numbered by its token, twice, and by whether it comes after the new one."""

_AHEAD = 8
"""Postings between the one that is looked at and the one whose cell is asked for."""


@helper
def _meet(neighbour: int, number: int, count: int, num_met: int, learning: Any) -> int:
    """Adds to what is known of a neighbour of the new token; returns how many are met."""
    neighbours = learning.neighbours
    if neighbours[neighbour].pair < 0:
        neighbours[neighbour].pair = 0
        learning.met[num_met] = neighbour
        num_met += 1
    neighbours[neighbour].number += number
    neighbours[neighbour].count += count
    return num_met


@helper
def _post(neighbour: int, cell: int, learning: Any) -> None:
    """Adds a posting to the pair of the new token and a neighbour."""
    learning.cells[cell].pair = learning.neighbours[neighbour].pair
    learning.postings[learning.neighbours[neighbour].number] = cell
    learning.neighbours[neighbour].number += 1


@helper
def _cell(posting: int, learning: Any) -> Any:
    """The cell of a posting; that of one some places on is asked for."""
    if posting + _AHEAD < learning.postings.size:
        prefetch(learning.cells, np.int64(learning.postings[posting + _AHEAD]))
    return np.int64(learning.postings[posting])


@helper
def _prefix(data: Any, start: int, length: int) -> Any:
    prefix = np.uint64(0)
    for place in range(min(length, 8)):
        prefix |= np.uint64(load8(data, start + place)) << np.uint64(56 - 8 * place)
    return prefix


@helper
def _merge(pair: int, learning: Any) -> None:
    """Makes `pair` a token wherever it occurs, from the left, and indexes the pairs that arise."""
    cells, pairs, tokens = learning.cells, learning.pairs, learning.tokens
    postings, neighbours = learning.postings, learning.neighbours
    made = learning.state[NUM_TOKENS]
    learning.state[NUM_TOKENS] += 1
    left, right = np.int64(pairs[pair].left), np.int64(pairs[pair].right)
    left_length = tokens[left].length
    length = left_length + tokens[right].length
    start, kept = pairs[pair].start, pairs[pair].start
    num_met = 0
    for posting in range(start, pairs[pair + 1].start):
        cell = _cell(posting, learning)
        if cells[cell].pair != pair:
            continue
        postings[kept] = cell
        kept += 1
        second, end = cell + left_length, cell + length
        count = learning.counts[cells[cell].pretoken]
        token = np.int64(cells[cell - 1].token)
        if token == made:
            # When this neighbour was made, `left` came after it; now comes its like.
            num_met = _meet(made << 1 | _AFTER, 1, count, num_met, learning)
            num_met = _meet(left << 1 | _AFTER, -1, -count, num_met, learning)
        elif token != EMPTY:
            num_met = _meet(token << 1, 1, count, num_met, learning)
            pairs[cells[cell - tokens[token].length].pair].count -= count
        token = np.int64(cells[end].token)
        if token != EMPTY:
            num_met = _meet(token << 1 | _AFTER, 1, count, num_met, learning)
            pairs[cells[second].pair].count -= count
        cells[cell].pair = cells[second].pair = NONE
        cells[cell].token = cells[end - 1].token = made
    pairs[pair].count = 0
    cell = np.int64(postings[start])
    tokens[made].length = length
    tokens[made].place = cell - 1 - cells[cell].pretoken
    tokens[made].prefix = _prefix(learning.data, tokens[made].place, length)
    for place in range(num_met):
        neighbour = np.int64(learning.met[place])
        token, number = neighbour >> 1, neighbours[neighbour].number
        if number > 0:
            left, right = (made, token) if neighbour & _AFTER else (token, made)
            arisen = add_pair(left, right, neighbours[neighbour].count, number, learning)
            neighbours[neighbour].pair = arisen
            neighbours[neighbour].number = pairs[arisen].start
    for posting in range(start, kept):
        cell = _cell(posting, learning)
        token = np.int64(cells[cell - 1].token)
        if token != EMPTY and token != made:
            _post(token << 1, cell - tokens[token].length, learning)
        token = np.int64(cells[cell + length].token)
        if token != EMPTY:
            _post(token << 1 | _AFTER, cell, learning)
    for place in range(num_met):
        neighbour = np.int64(learning.met[place])
        neighbours[neighbour].number = neighbours[neighbour].count = 0
        neighbours[neighbour].pair = -1


@kernel(types.int64(LEARNING, types.int64, types.int64))
def learn(learning: Any, wanted: int, work: int) -> int:
    """Learns merges until there are `wanted`, or about `work` occurrences have been looked at."""
    pairs, state = learning.pairs, learning.state
    while state[NUM_TOKENS] < 256 + wanted:
        if work < 0:
            return PAUSED
        pair = first(learning)
        if pair < 0:
            return NO_PAIR
        occurrences = pairs[pair + 1].start - pairs[pair].start
        state[PAIRS_WANTED] = 2 * min(occurrences, state[NUM_TOKENS] + 1)
        state[POSTINGS_WANTED] = 2 * occurrences
        known, used = state[NUM_PAIRS], pairs[state[NUM_PAIRS]].start
        if (
            known + state[PAIRS_WANTED] >= pairs.size
            or used + state[POSTINGS_WANTED] > learning.postings.size
        ):
            return NO_ROOM
        learning.merges[state[NUM_TOKENS] - 256, 0] = pairs[pair].left
        learning.merges[state[NUM_TOKENS] - 256, 1] = pairs[pair].right
        _merge(pair, learning)
        for arisen in range(known, state[NUM_PAIRS]):
            enqueue(arisen, learning)
        work -= occurrences + _MERGE_WORK
    return LEARNT
