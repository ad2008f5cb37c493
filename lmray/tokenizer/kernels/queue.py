"""The queue of pairs while merges are learnt: the most frequent first, equals in their order.

The greatest count only ever falls, so pairs wait in the buckets of a radix heap (Ahuja, Mehlhorn,
Orlin and Tarjan, 1990): bucket b holds those whose count differed from the greatest in bit b at
most when they were put there. A count may have fallen since; it is asked anew when the bucket is
emptied. Only pairs of the greatest count, bucket 0, are compared: in a binary heap, the top.
"""

from typing import Any

import numpy as np

from lmray.native.compiled import helper
from lmray.tokenizer.kernels.compiled import bit_length, load8, load64
from lmray.tokenizer.kernels.learning import GREATEST, NONE, NUM_TOP


@helper
def _greater(one: int, other: int, learning: Any) -> bool:
    """Whether the bytes of one token are greater than those of another that differ from them."""
    tokens, data = learning.tokens, learning.data
    if tokens[one].prefix != tokens[other].prefix:
        return tokens[one].prefix > tokens[other].prefix
    start, start_other = tokens[one].place, tokens[other].place
    shorter = min(tokens[one].length, tokens[other].length)
    same = 0
    while same + 8 <= shorter and load64(data, start + same) == load64(data, start_other + same):
        same += 8
    while same < shorter:
        byte, byte_other = load8(data, start + same), load8(data, start_other + same)
        if byte != byte_other:
            return byte > byte_other
        same += 1
    return tokens[one].length > tokens[other].length


@helper
def _precedes(one: int, other: int, learning: Any) -> bool:
    """Whether, of two different pairs that are equally frequent, `one` is merged first."""
    pairs = learning.pairs
    left, left_other = pairs[one].left, pairs[other].left
    right, right_other = pairs[one].right, pairs[other].right
    if not learning.by_bytes:
        return left < left_other or (left == left_other and right < right_other)
    if left == left_other:
        left, left_other = right, right_other
    return _greater(left, left_other, learning)


@helper
def _push(pair: int, learning: Any) -> None:
    """Adds a pair to the top."""
    top, hole = learning.top, learning.state[NUM_TOP]
    learning.state[NUM_TOP] += 1
    while hole > 0:
        above = (hole - 1) >> 1
        if not _precedes(pair, np.int64(top[above]), learning):
            break
        top[hole] = top[above]
        hole = above
    top[hole] = pair


@helper
def _pop(learning: Any) -> None:
    """Takes out of the top the pair that precedes the others there."""
    top = learning.top
    learning.state[NUM_TOP] -= 1
    length, hole = learning.state[NUM_TOP], 0
    pair = np.int64(top[length])
    while True:
        below = 2 * hole + 1
        if below >= length:
            break
        if below + 1 < length:
            below += _precedes(np.int64(top[below + 1]), np.int64(top[below]), learning)
        if not _precedes(np.int64(top[below]), pair, learning):
            break
        top[hole] = top[below]
        hole = below
    top[hole] = pair


@helper
def enqueue(pair: int, learning: Any) -> None:
    """Puts a pair into the bucket of its count; one that occurs no more is left out."""
    pairs, buckets = learning.pairs, learning.buckets
    if pairs[pair].count > 0:
        bucket = bit_length(pairs[pair].count ^ learning.state[GREATEST])
        pairs[pair].following = buckets[bucket]
        buckets[bucket] = pair


@helper
def _descend(learning: Any) -> bool:
    """Empties the bucket of the greatest counts into those below; False if all are empty."""
    pairs, buckets, state = learning.pairs, learning.buckets, learning.state
    bucket = 1
    while buckets[bucket] == NONE:
        bucket += 1
        if bucket == buckets.size:
            return False
    head = buckets[bucket]
    buckets[bucket] = NONE
    greatest, pair = 0, head
    while pair != NONE:
        greatest = max(greatest, pairs[pair].count)
        pair = pairs[pair].following
    # If all counts here have fallen too far, a later bucket may hold a greater one.
    if bit_length(greatest ^ state[GREATEST]) == bucket:
        state[GREATEST] = greatest
    pair = head
    while pair != NONE:
        following = pairs[pair].following
        enqueue(np.int64(pair), learning)
        pair = following
    return True


@helper
def first(learning: Any) -> Any:
    """The pair to merge next; -1 if none is left. It stays queued until its count is 0."""
    pairs, buckets, state = learning.pairs, learning.buckets, learning.state
    while True:
        pair = buckets[0]
        buckets[0] = NONE
        while pair != NONE:
            _push(np.int64(pair), learning)
            pair = pairs[pair].following
        if state[NUM_TOP] > 0:
            candidate = np.int64(learning.top[0])
            if pairs[candidate].count == state[GREATEST]:
                return candidate
            _pop(learning)
            enqueue(candidate, learning)
        elif not _descend(learning):
            return -1


@helper
def clear(learning: Any) -> None:
    """Takes out all pairs; counts of any size may follow."""
    learning.state[NUM_TOP] = 0
    learning.state[GREATEST] = np.iinfo(np.int64).max
    learning.buckets[:] = NONE
