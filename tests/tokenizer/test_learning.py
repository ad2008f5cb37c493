"""Both learners against counting every pair anew, and against Hugging Face's `tokenizers`."""

import json
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.errors import PreflightError
from lmray.tokenizer import (
    END_OF_TEXT,
    GPT2_PATTERN,
    PretokenCounts,
    count_pretokens,
    learn_merges,
    learning_bytes,
    native,
    native_learner,
)
from lmray.tokenizer.learning import TieBreak
from lmray.tokenizer.native_learner import NativeLearner
from lmray.tokenizer.plain_learner import PlainLearner
from lmray.tokenizer.printable import byte_characters

Merges = list[tuple[bytes, bytes]]
TIE_BREAKS: list[TieBreak] = ["bytes", "huggingface"]


def naive_merges(counts: Mapping[bytes, int], number: int, tie_break: str = "bytes") -> Merges:
    """Counts every pair of every word anew before each merge; stops where no pair is left."""
    words = [([bytes([byte]) for byte in word], count) for word, count in counts.items()]
    characters = sorted((character, byte) for byte, character in byte_characters().items())
    ids = {bytes([byte]): number for number, (_character, byte) in enumerate(characters)}
    merges: Merges = []
    while len(merges) < number:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, count in words:
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        if tie_break == "bytes":
            best = max(pairs, key=lambda pair: (pairs[pair], pair))
        else:
            best = min(pairs, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        merges.append(best)
        ids[best[0] + best[1]] = len(ids)
        for word, _count in words:
            place = 0
            while place < len(word) - 1:
                if (word[place], word[place + 1]) == best:
                    word[place : place + 2] = [best[0] + best[1]]
                place += 1
    return merges


@pytest.fixture(params=["plain Python", "kernels"])
def either_learner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes `learn_merges` use one of its learners."""
    monkeypatch.setattr(native, "enough", lambda _bytes: request.param == "kernels")
    return request.param


words = (
    st.text(alphabet="ab", min_size=1, max_size=12).map(str.encode)
    | st.binary(min_size=1, max_size=6)
    | st.integers(1, 40).map(lambda length: b"a" * length)
)
small_counts = st.dictionaries(words, st.integers(1, 4), max_size=12)


def agrees(counts: Mapping[bytes, int], number: int, tie_break: TieBreak) -> None:
    expected = naive_merges(counts, number, tie_break)
    arrays = PretokenCounts.of(counts)
    for learner_class in (PlainLearner, NativeLearner):
        by_character = sorted(range(256), key=lambda byte: byte_characters()[byte])
        first = list(range(256)) if tie_break == "bytes" else by_character
        learner = learner_class(arrays, number, first, by_bytes=tie_break == "bytes")
        while learner.learn():
            pass
        tokens = [bytes([byte]) for byte in first]
        merges = []
        for left, right in learner.merges:
            merges.append((tokens[left], tokens[right]))
            tokens.append(tokens[left] + tokens[right])
        assert merges == expected


@given(small_counts, st.integers(0, 40), st.sampled_from(TIE_BREAKS))
def test_equal_to_counting_anew(counts: dict[bytes, int], number: int, tie_break: TieBreak) -> None:
    agrees(counts, number, tie_break)


def byte_pairs(counts: PretokenCounts) -> int:
    return len({pair for word in counts.as_counter() for pair in pairwise(word)})


@given(small_counts, st.integers(0, 40), st.sampled_from(TIE_BREAKS), st.integers(0, 8))
def test_equal_where_there_is_hardly_room(
    counts: dict[bytes, int], number: int, tie_break: TieBreak, spare: int
) -> None:
    """Kernels that stop after each merge, and pairs and postings that are always full."""

    def least(counts: PretokenCounts) -> tuple[int, int]:
        return byte_pairs(counts) + 1 + spare, len(counts.data) + spare

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_learner, "_first_room", least)
        patch.setattr(NativeLearner, "_WORK", 0)
        agrees(counts, number, tie_break)


@pytest.mark.usefixtures("either_learner")
def test_the_courseworks_example() -> None:
    counts = PretokenCounts.of({b"low": 5, b"lower": 2, b"widest": 3, b"newest": 6})
    merges = learn_merges(counts, vocab_size=256 + 13, special_tokens=[END_OF_TEXT])
    spelt = " ".join(f"{left.decode()}+{right.decode()}" for left, right in merges)
    assert spelt == ("s+t e+st o+w l+ow w+est n+e ne+west w+i wi+d wid+est low+e lowe+r")


@pytest.mark.usefixtures("either_learner")
def test_a_tie_goes_to_the_greatest_pair_of_byte_strings() -> None:
    # Compared as pairs, not as joined text; a longer string is greater than its own beginning.
    counts = PretokenCounts.of({b"AB": 1, b"BA": 1, b"ZZ": 1})
    assert learn_merges(counts, vocab_size=257, special_tokens=[]) == [(b"Z", b"Z")]
    counts = PretokenCounts.of({b"xx": 9, b"xxa": 1, b"xb": 1})
    assert learn_merges(counts, vocab_size=258, special_tokens=[])[1] == (b"xx", b"a")


@pytest.mark.usefixtures("either_learner")
def test_a_tie_of_long_tokens_is_decided_by_their_last_byte() -> None:
    counts = PretokenCounts.of({b"0123456789abcdefgh" + last: 1 for last in (b"x", b"z", b"y")})
    merges = learn_merges(counts, vocab_size=256 + 17 + 3, special_tokens=[])
    assert [pair[1] for pair in merges[-3:]] == [b"z", b"y", b"x"]


@pytest.mark.usefixtures("either_learner")
def test_huggingfaces_ids_are_in_the_order_of_characters() -> None:
    """Its first character is '!', not the byte 0; control characters and space come last."""
    counts = PretokenCounts.of({b"\x00\x00": 1, b"  ": 1, b"!!": 1, b"aa": 1})
    merges = learn_merges(counts, vocab_size=260, special_tokens=[], tie_break="huggingface")
    assert [left for left, _right in merges] == [b"!", b"a", b"\x00", b" "]


@pytest.mark.usefixtures("either_learner")
def test_counts_need_not_fit_into_32_bits() -> None:
    counts = PretokenCounts.of({b"ab": 1 << 60, b"cab": 1 << 60, b"cd": (1 << 61) + 1})
    assert learn_merges(counts, vocab_size=257, special_tokens=[]) == [(b"c", b"d")]


@pytest.mark.usefixtures("either_learner")
def test_too_few_merges_are_refused() -> None:
    counts = PretokenCounts.of({b"low": 5, b"lower": 2})
    with pytest.raises(PreflightError, match=r"5,000 asked for.* only 4 merges: at most 261;"):
        learn_merges(counts, vocab_size=5_000, special_tokens=[END_OF_TEXT])
    with pytest.raises(PreflightError, match="only 0 merges"):
        learn_merges(PretokenCounts.of({}), vocab_size=300, special_tokens=[])
    assert learn_merges(PretokenCounts.of({}), vocab_size=256, special_tokens=[]) == []


@pytest.mark.usefixtures("either_learner")
def test_progress_is_told_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeLearner, "_WORK", 1_000)
    counts = PretokenCounts.of(
        {bytes([first, second]): 1 for first in b"abc" for second in range(99)}
    )
    seen: list[tuple[str, int, int, str]] = []
    learn_merges(
        counts, vocab_size=500, special_tokens=[], progress=lambda *report: seen.append(report)
    )
    done = [report[1] for report in seen]
    assert len(done) > 3
    assert done == sorted(done)
    assert seen[-1] == ("merges", 244, 244, "merges")


def test_a_megabyte_of_one_letter_is_not_quadratic() -> None:
    native.kernels()
    counts = PretokenCounts.of({b"a" * (1 << 20): 1, b"a" * (1 << 20) + b"b" * (1 << 20): 1})
    begun = time.process_time()
    merges = learn_merges(counts, vocab_size=256 + 30, special_tokens=[])
    assert time.process_time() - begun < 10
    doubled = [(b"a" * (1 << n), b"a" * (1 << n)) for n in range(8)]
    assert [pair for pair in merges if pair[0][0] == ord("a")][:8] == doubled


def random_words(number: int, alphabet: bytes) -> dict[bytes, int]:
    chosen = random.Random(0)
    return {bytes(chosen.choices(alphabet, k=chosen.randint(1, 20))): 1 for _ in range(number)}


@pytest.mark.parametrize(
    "counts",
    [
        random_words(20_000, bytes(range(256))),
        random_words(20_000, b"ab"),
        {b"a" * (1 << 20): 1},
        {b"a": 1},
    ],
    ids=["all different", "two letters", "one run", "one letter"],
)
def test_memory_stays_within_what_is_announced(counts: dict[bytes, int]) -> None:
    kernels, arrays = native.kernels(), PretokenCounts.of(counts)
    assert kernels.CELL.itemsize == native_learner._CELL_BYTES
    tracemalloc.start()
    learner = NativeLearner(arrays, 30_000, list(range(256)), by_bytes=True)
    while learner.learn():
        pass
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= learning_bytes(arrays, 30_256)


def test_more_pretokens_than_can_be_numbered_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_learner, "MAX_CELLS", 8)
    counts = PretokenCounts.of({b"abcdef": 1})
    NativeLearner(counts, 1, list(range(256)), by_bytes=True)
    with pytest.raises(PreflightError, match="2 distinct pre-tokens of 7 bytes make 10 cells"):
        NativeLearner(PretokenCounts.of({b"abcdef": 1, b"g": 1}), 1, [*range(256)], by_bytes=True)


def hugging_face_merges(text: str, number: int) -> Merges:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=256 + number,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.split(END_OF_TEXT), trainer)
    byte = {character: byte for byte, character in byte_characters().items()}
    return [
        tuple(bytes(byte[character] for character in token) for token in pair)
        for pair in json.loads(tokenizer.to_str())["model"]["merges"]
    ]


@given(st.text("ab é!\n\u0120東", max_size=60), st.integers(0, 30))
def test_equal_to_tokenizers(text: str, number: int) -> None:
    counts = count_pretokens(text.encode(), pattern=GPT2_PATTERN, special_tokens=[]).as_counter()
    expected = hugging_face_merges(text, number)
    agrees(counts, len(expected), "huggingface")
    assert naive_merges(counts, number, "huggingface") == expected


@pytest.mark.parametrize("name", ["tinystories-valid", "webtext-valid"])
def test_equal_to_tokenizers_on_real_text(data_dir: Path, name: str) -> None:
    data = (data_dir / f"{name}.txt").read_bytes()
    counts = count_pretokens(data, pattern=GPT2_PATTERN, special_tokens=[END_OF_TEXT])
    merges = learn_merges(counts, vocab_size=6_256, special_tokens=[], tie_break="huggingface")
    assert merges == hugging_face_merges(data.decode(), 6_000)


@pytest.mark.parametrize("tie_break", TIE_BREAKS)
@pytest.mark.parametrize("name", ["tinystories-train", "webtext-valid"])
def test_the_learners_agree_on_real_text(data_dir: Path, name: str, tie_break: TieBreak) -> None:
    data = (data_dir / f"{name}.txt").read_bytes()
    arrays = count_pretokens(data, pattern=GPT2_PATTERN, special_tokens=[END_OF_TEXT])
    plain = PlainLearner(arrays, 6_000, list(range(256)), by_bytes=tie_break == "bytes")
    fast = NativeLearner(arrays, 6_000, list(range(256)), by_bytes=tie_break == "bytes")
    for learner in (plain, fast):
        while learner.learn():
            pass
    assert np.array_equal(np.array(plain.merges), fast.merges)
