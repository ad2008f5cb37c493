"""Learning merges by kernels: their arrays, and room in them."""

from collections.abc import Sequence

import numpy as np

from lmray.errors import PreflightError
from lmray.tokenizer import native
from lmray.tokenizer.counts import PretokenCounts

MAX_CELLS = (1 << 32) - 1
"""Bytes of distinct pre-tokens, and two for each: as many as postings can number."""

_BYTE_PAIRS = 1 << 16
_CELL_BYTES, _POSTING_BYTES, _PAIR_BYTES, _TOKEN_BYTES = 12, 4, 36, 88
_SCRATCH_BYTES = 1 << 21


class NativeLearner:
    """`PlainLearner` with its state in arrays."""

    _WORK = 1 << 18
    """Occurrences that a kernel looks at before Python can report or be interrupted."""

    def __init__(
        self, counts: PretokenCounts, wanted: int, first_bytes: Sequence[int], *, by_bytes: bool
    ) -> None:
        """As `PlainLearner`; loads the kernels.

        Raises PreflightError if there are more distinct pre-tokens than can be indexed.
        """
        num_cells = _num_cells(counts)
        if num_cells > MAX_CELLS:
            raise PreflightError(
                f"{len(counts):,} distinct pre-tokens of {len(counts.data):,} bytes make "
                f"{num_cells:,} cells, but learning merges can number only {MAX_CELLS:,}; "
                f"use less text, or a pattern that cuts it into shorter pre-tokens"
            )
        self._kernels = kernels = native.kernels()
        self._wanted = wanted
        num_tokens = 256 + wanted + 1
        num_pairs, num_postings = _first_room(counts)
        neighbours = np.zeros(2 * num_tokens, dtype=kernels.NEIGHBOUR)
        neighbours["pair"] = -1
        byte_tokens = np.empty(256, dtype=np.int32)
        byte_tokens[list(first_bytes)] = np.arange(256)
        self._arrays = kernels.Learning(
            data=_read_only(counts.data),
            counts=_read_only(counts.counts),
            by_bytes=by_bytes,
            cells=np.empty(num_cells, dtype=kernels.CELL),
            postings=np.empty(num_postings, dtype=np.uint32),
            pairs=np.empty(num_pairs, dtype=kernels.PAIR),
            tokens=np.empty(num_tokens, dtype=kernels.TOKEN),
            merges=np.empty((wanted, 2), dtype=np.int32),
            buckets=np.empty(64, dtype=np.uint32),
            top=np.empty(num_pairs, dtype=np.uint32),
            neighbours=neighbours,
            met=np.empty(2 * num_tokens, dtype=np.int32),
            state=np.zeros(kernels.STATE_SIZE, dtype=np.int64),
        )
        kernels.index_bytes(self._arrays, _read_only(counts.ends), byte_tokens)

    @property
    def merges(self) -> np.ndarray:
        """The ids of the two tokens of each merge so far, (merges, 2)."""
        return self._arrays.merges[: self._arrays.state[self._kernels.NUM_TOKENS] - 256]

    def learn(self) -> bool:
        """As `PlainLearner.learn`."""
        status = self._kernels.learn(self._arrays, self._wanted, self._WORK)
        if status == self._kernels.NO_ROOM:
            self._make_room()
        return status not in (self._kernels.LEARNT, self._kernels.NO_PAIR)

    def _make_room(self) -> None:
        """Drops what is gone from pairs and postings, and enlarges what is still full."""
        kernels, arrays = self._kernels, self._arrays
        kernels.compact(arrays)
        num_pairs = arrays.state[kernels.NUM_PAIRS]
        wanted_pairs = num_pairs + arrays.state[kernels.PAIRS_WANTED] + 1
        wanted_postings = arrays.pairs[num_pairs]["start"] + arrays.state[kernels.POSTINGS_WANTED]
        # An eighth must be free, or it would soon be full again.
        if max(wanted_pairs, num_pairs * 8 // 7) > len(arrays.pairs):
            _enlarge(arrays.pairs, wanted_pairs)
            _enlarge(arrays.top, wanted_pairs)
        if max(wanted_postings, arrays.pairs[num_pairs]["start"] * 8 // 7) > len(arrays.postings):
            _enlarge(arrays.postings, wanted_postings)


def learning_bytes(counts: PretokenCounts, vocab_size: int) -> int:
    """The most memory that learning takes beside `counts`, in bytes; text takes a third of it.

    It is 12 for each byte and each distinct pre-token, up to 12 for postings and 52 for
    pairs for each two neighbouring bytes (if all of them made different pairs), and 88 for each id.
    """
    neighbours = len(counts.data) - len(counts)
    num_pairs, num_postings = _first_room(counts)
    most_pairs = max(num_pairs, (neighbours + 2 * vocab_size) * 10 // 7)
    most_postings = max(num_postings, 3 * neighbours)
    return (
        _num_cells(counts) * _CELL_BYTES
        + most_postings * _POSTING_BYTES
        + most_pairs * _PAIR_BYTES
        + vocab_size * _TOKEN_BYTES
        + _SCRATCH_BYTES
    )


def _num_cells(counts: PretokenCounts) -> int:
    return len(counts.data) + len(counts) + 1


def _first_room(counts: PretokenCounts) -> tuple[int, int]:
    """Pairs and postings that there is room for at first; text seldom needs more."""
    neighbours = len(counts.data) - len(counts)
    return _BYTE_PAIRS + neighbours // 3 + 1, _BYTE_PAIRS + neighbours + neighbours // 4


def _read_only(array: np.ndarray) -> np.ndarray:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _enlarge(array: np.ndarray, size: int) -> None:
    """Makes an array longer by a quarter, or to `size`, in its place: large ones are not copied."""
    array.resize(max(size, len(array) + len(array) // 4), refcheck=False)
