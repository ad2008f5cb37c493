"""Machine code for pre-tokenization, counting, learning and encoding.

`lmray.tokenizer.native` imports it. That imports numba, and compiles the kernels where the cache
does not hold them yet. `count` and `encode` are compiled for a pattern by its module, which is
imported when it is first needed.
"""

from lmray.tokenizer.kernels.add_counts import add_counts
from lmray.tokenizer.kernels.count import count
from lmray.tokenizer.kernels.encode import LONGEST, NO_SUCH_BYTE, OUT_FULL, encode
from lmray.tokenizer.kernels.learn import LEARNT, NO_PAIR, NO_ROOM, learn
from lmray.tokenizer.kernels.learning import (
    CELL,
    NEIGHBOUR,
    NUM_PAIRS,
    NUM_TOKENS,
    PAIR,
    PAIRS_WANTED,
    POSTINGS_WANTED,
    STATE_SIZE,
    TOKEN,
    Learning,
)
from lmray.tokenizer.kernels.pairs import FREE, ID_LIMIT, RANK_LIMIT, fill_pairs
from lmray.tokenizer.kernels.postings import compact, index_bytes
from lmray.tokenizer.kernels.specials import find_specials
from lmray.tokenizer.kernels.table import TABLE_FULL, WIDTH, rehash

__all__ = [
    "CELL",
    "FREE",
    "ID_LIMIT",
    "LEARNT",
    "LONGEST",
    "NEIGHBOUR",
    "NO_PAIR",
    "NO_ROOM",
    "NO_SUCH_BYTE",
    "NUM_PAIRS",
    "NUM_TOKENS",
    "OUT_FULL",
    "PAIR",
    "PAIRS_WANTED",
    "POSTINGS_WANTED",
    "RANK_LIMIT",
    "STATE_SIZE",
    "TABLE_FULL",
    "TOKEN",
    "WIDTH",
    "Learning",
    "add_counts",
    "compact",
    "count",
    "encode",
    "fill_pairs",
    "find_specials",
    "index_bytes",
    "learn",
    "rehash",
]
