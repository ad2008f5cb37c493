"""Machine code for pre-tokenization, counting and encoding; `lmray.tokenizer.native` imports it.

Importing it imports numba, and compiles the kernels where the cache does not hold them yet. `count`
and `encode` are compiled for a pattern by its module, which is imported when it is first needed.
"""

from lmray.tokenizer.kernels.count import count
from lmray.tokenizer.kernels.encode import LONGEST, NO_SUCH_BYTE, OUT_FULL, encode
from lmray.tokenizer.kernels.pairs import FREE, ID_LIMIT, RANK_LIMIT, fill_pairs
from lmray.tokenizer.kernels.specials import find_specials
from lmray.tokenizer.kernels.table import TABLE_FULL, WIDTH, rehash

__all__ = [
    "FREE",
    "ID_LIMIT",
    "LONGEST",
    "NO_SUCH_BYTE",
    "OUT_FULL",
    "RANK_LIMIT",
    "TABLE_FULL",
    "WIDTH",
    "count",
    "encode",
    "fill_pairs",
    "find_specials",
    "rehash",
]
