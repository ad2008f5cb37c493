"""Learning merges: the most frequent pair of neighbouring tokens becomes a token, over and over."""

import heapq
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from lmray.corpus.ranges import SEPARATOR, ByteRange, byte_ranges
from lmray.errors import PreflightError, UsageError
from lmray.progress import Progress, silent
from lmray.tokenizer.counting import pretoken_counter
from lmray.tokenizer.counts import PretokenCounts
from lmray.tokenizer.merging import Pair, replace_pair
from lmray.tokenizer.pattern import GPT2_PATTERN

TIE_BREAK = "lexicographically greatest pair of byte strings"
"""Which of several equally frequent pairs is merged; recorded with every tokenizer."""

_CHUNK_BYTES = 1 << 22
_REPORT_EVERY = 64


def train_bpe(
    input_path: Path | str,
    vocab_size: int,
    special_tokens: list[str],
    *,
    pattern: str = GPT2_PATTERN,
    progress: Progress = silent,
) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]]]:
    """Learns a vocabulary and its merges from one text file, in this process.

    Ids are the 256 bytes, the merges in order, then the special tokens. Raises as `learn_merges`.
    """
    check_vocab_size(vocab_size, special_tokens)
    chunks = _chunks(input_path, special_tokens)
    size = chunks[-1].end if chunks else 0
    counter = pretoken_counter(pattern, special_tokens, num_bytes=size)
    for chunk in chunks:
        counter.add(chunk.read())
        progress("pre-tokens", chunk.end, size, "bytes")
    merges = learn_merges(
        counter.counts(), vocab_size=vocab_size, special_tokens=special_tokens, progress=progress
    )
    return vocabulary(merges, special_tokens), merges


def learn_merges(
    counts: PretokenCounts,
    *,
    vocab_size: int,
    special_tokens: Sequence[str],
    progress: Progress = silent,
) -> list[tuple[bytes, bytes]]:
    """The merges, in order, that fill a vocabulary of `vocab_size` beside bytes and special tokens.

    Raises UsageError if the vocabulary has no room for bytes and special tokens, and
    PreflightError, saying how many merges there are, if `counts` gives too few.
    """
    wanted = check_vocab_size(vocab_size, special_tokens)
    learner = _Learner(counts.as_counter())
    merges: list[tuple[bytes, bytes]] = []
    while len(merges) < wanted:
        pair = learner.most_frequent()
        if pair is None:
            most = len(merges) + 256 + len(special_tokens)
            raise PreflightError(
                f"vocabulary of {vocab_size:,} asked for, but this corpus gives only "
                f"{len(merges):,} merges: at most {most:,}; lower --vocab-size or use more text"
            )
        merges.append((learner.tokens[pair[0]], learner.tokens[pair[1]]))
        learner.merge(pair)
        if len(merges) % _REPORT_EVERY == 0 or len(merges) == wanted:
            progress("merges", len(merges), wanted, "merges")
    return merges


def vocabulary(
    merges: Sequence[tuple[bytes, bytes]], special_tokens: Sequence[str]
) -> dict[int, bytes]:
    """Token bytes by id: the 256 bytes, then each merge's result, then the special tokens."""
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [left + right for left, right in merges]
    tokens += [token.encode() for token in special_tokens]
    return dict(enumerate(tokens))


def check_vocab_size(vocab_size: int, special_tokens: Sequence[str]) -> int:
    """The number of merges a vocabulary has room for.

    Raises UsageError if that is negative.
    """
    fixed = 256 + len(special_tokens)
    if vocab_size < fixed:
        raise UsageError(
            f"vocabulary of {vocab_size} is too small for 256 bytes and {len(special_tokens)} "
            f"special tokens; ask for at least {fixed}"
        )
    return vocab_size - fixed


class _Learner:
    """Pre-tokens as token ids, and pair counts that follow each merge without a recount."""

    def __init__(self, counts: Mapping[bytes, int]) -> None:
        self.tokens = [bytes([byte]) for byte in range(256)]
        self._descending = [_descending(token) for token in self.tokens]
        self._words = [list(pretoken) for pretoken in counts]
        self._word_counts = list(counts.values())
        self._pair_counts: defaultdict[Pair, int] = defaultdict(int)
        self._words_with: defaultdict[Pair, set[int]] = defaultdict(set)
        for word, (ids, count) in enumerate(zip(self._words, self._word_counts, strict=True)):
            for pair in pairwise(ids):
                self._pair_counts[pair] += count
                self._words_with[pair].add(word)
        self._queue = [self._entry(pair) for pair in self._pair_counts]
        heapq.heapify(self._queue)

    def most_frequent(self) -> Pair | None:
        """The pair to merge next; None once no word has two tokens."""
        while self._queue:
            entry = heapq.heappop(self._queue)
            pair, count = entry[3], self._pair_counts[entry[3]]
            if count == -entry[0]:
                return pair
            # The count of a queued pair only falls; once its old count is due, it queues anew.
            if count > 0:
                heapq.heappush(self._queue, self._entry(pair))
        return None

    def merge(self, pair: Pair) -> None:
        """Makes `pair` a token and brings counts and index up to date in the words that hold it."""
        merged = len(self.tokens)
        self.tokens.append(self.tokens[pair[0]] + self.tokens[pair[1]])
        self._descending.append(_descending(self.tokens[merged]))
        arisen: set[Pair] = set()
        for word in self._words_with.pop(pair):
            before, count = self._words[word], self._word_counts[word]
            after = self._words[word] = replace_pair(before, pair, merged)
            for old in pairwise(before):
                self._pair_counts[old] -= count
            for new in pairwise(after):
                self._pair_counts[new] += count
                if merged in new:
                    self._words_with[new].add(word)
                    arisen.add(new)
        del self._pair_counts[pair]
        for new in arisen:
            heapq.heappush(self._queue, self._entry(new))

    def _entry(self, pair: Pair) -> tuple[int, str, str, Pair]:
        left, right = pair
        count = self._pair_counts[pair]
        return -count, self._descending[left], self._descending[right], pair


def _descending(token: bytes) -> str:
    """A key that sorts byte strings from the greatest to the least, longer ones before prefixes."""
    return "".join(chr(255 - byte) for byte in token) + "\u0100"


def _chunks(path: Path | str, special_tokens: Sequence[str]) -> list[ByteRange]:
    """Parts of the file that end with a special token, or all of it where no cut is safe."""
    separator = SEPARATOR.decode()
    others = [token for token in special_tokens if token != separator]
    safe = separator in special_tokens and not any(_overlap(separator, other) for other in others)
    return byte_ranges(path, target_bytes=_CHUNK_BYTES if safe else sys.maxsize)


def _overlap(one: str, other: str) -> bool:
    """Whether a text can hold both so that they share characters."""
    return (
        one in other
        or other in one
        or any(
            one.endswith(other[:n]) or other.endswith(one[:n])
            for n in range(1, min(len(one), len(other)))
        )
    )
