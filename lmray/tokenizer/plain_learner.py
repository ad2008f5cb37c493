"""Learning merges in plain Python: for a little text, and what the kernels are held against."""

import heapq
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from lmray.tokenizer.counts import PretokenCounts
from lmray.tokenizer.merging import Pair, replace_pair


class PlainLearner:
    """Pre-tokens as token ids, and pair counts that follow each merge without a recount."""

    _MERGES_AT_ONCE = 64

    def __init__(
        self,
        counts: PretokenCounts,
        wanted: int,
        first_bytes: Sequence[int],
        *,
        by_bytes: bool,
    ) -> None:
        """Ids are those of the bytes in the order of `first_bytes`, then of the merges' tokens.

        Of equally frequent pairs the one of the greatest bytes is merged first if `by_bytes`, else
        the one of the smallest ids.
        """
        self.merges: list[Pair] = []
        self._wanted = wanted
        self._tokens = [bytes([byte]) for byte in first_bytes]
        self._by_bytes = by_bytes
        self._descending = [_descending(token) for token in self._tokens]
        ids = {byte: token for token, byte in enumerate(first_bytes)}
        self._words = [[ids[byte] for byte in pretoken] for pretoken in counts.as_counter()]
        self._word_counts = counts.counts.tolist()
        self._pair_counts: defaultdict[Pair, int] = defaultdict(int)
        self._words_with: defaultdict[Pair, set[int]] = defaultdict(set)
        for word, (tokens, count) in enumerate(zip(self._words, self._word_counts, strict=True)):
            for pair in pairwise(tokens):
                self._pair_counts[pair] += count
                self._words_with[pair].add(word)
        self._queue = [self._entry(pair) for pair in self._pair_counts]
        heapq.heapify(self._queue)

    def learn(self) -> bool:
        """Learns some more merges; False once there are all that are wanted, or no pair is left."""
        for _ in range(self._MERGES_AT_ONCE):
            pair = self._most_frequent() if len(self.merges) < self._wanted else None
            if pair is None:
                return False
            self.merges.append(pair)
            self._merge(pair)
        return True

    def _most_frequent(self) -> Pair | None:
        """The pair to merge next; None once no word has two tokens."""
        while self._queue:
            entry = heapq.heappop(self._queue)
            pair, count = entry[-1], self._pair_counts[entry[-1]]
            if count == -entry[0]:
                return pair
            # The count of a queued pair only falls; once its old count is due, it queues anew.
            if count > 0:
                heapq.heappush(self._queue, self._entry(pair))
        return None

    def _merge(self, pair: Pair) -> None:
        """Makes `pair` a token and brings counts and index up to date in the words that hold it."""
        merged = len(self._tokens)
        self._tokens.append(self._tokens[pair[0]] + self._tokens[pair[1]])
        self._descending.append(_descending(self._tokens[merged]))
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
        left, right = pair if self._by_bytes else (0, 0)
        return -self._pair_counts[pair], self._descending[left], self._descending[right], pair


def _descending(token: bytes) -> str:
    """A key that sorts byte strings from the greatest to the least, longer ones before prefixes."""
    return "".join(chr(255 - byte) for byte in token) + "\u0100"
