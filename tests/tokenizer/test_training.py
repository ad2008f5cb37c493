from pathlib import Path

import pytest

from lmray.errors import PreflightError, UsageError
from lmray.tokenizer import (
    END_OF_TEXT,
    GPT2_PATTERN,
    Tokenizer,
    count_pretokens,
    train_bpe,
    training,
    vocabulary,
)
from tests.tokenizer.test_learning import naive_merges


def test_special_tokens_take_no_part_and_come_last(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text(f"aab {END_OF_TEXT}aab aab{END_OF_TEXT}" * 4)
    vocab, merges = train_bpe(path, 260, [END_OF_TEXT])
    assert merges == [(b"a", b"b"), (b"a", b"ab"), (b" ", b"aab")]
    assert [vocab[token] for token in range(256)] == [bytes([byte]) for byte in range(256)]
    assert [vocab[token] for token in range(256, 260)] == [b"ab", b"aab", b" aab", b"<|endoftext|>"]


@pytest.mark.parametrize(
    "specials",
    [[], ["<p>"], [END_OF_TEXT], [END_OF_TEXT, "<|endoftext|><p>"], ["t|>x", END_OF_TEXT]],
)
def test_reading_in_chunks_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, specials: list[str]
) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("<p>the cat<|endoftext|><p>he's there<|endoftext|>xen! other hats" * 5)
    whole = train_bpe(path, 266, specials)
    monkeypatch.setattr(training, "_CHUNK_BYTES", 7)
    assert train_bpe(path, 266, specials) == whole


def test_progress_ends_at_its_total(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("there and there and here")
    seen = []
    train_bpe(path, 262, [], progress=lambda *report: seen.append(report))
    assert seen[0] == ("pre-tokens", 24, 24, "bytes")
    assert seen[-1] == ("merges", 6, 6, "merges")


def test_a_vocabulary_without_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"vocabulary of 256 is too small.*ask for at least 257"):
        train_bpe(tmp_path / "never read.txt", 256, [END_OF_TEXT])


def test_a_corpus_with_too_few_merges_says_how_many(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("low lower")
    with pytest.raises(PreflightError, match=r"5,000 asked for.* only 5 merges: at most 262;"):
        train_bpe(path, 5_000, [END_OF_TEXT])
    path.write_text("")
    with pytest.raises(PreflightError, match="only 0 merges"):
        train_bpe(path, 300, [END_OF_TEXT])
    with pytest.raises(UsageError, match=r"cannot read .*absent"):
        train_bpe(tmp_path / "absent.txt", 300, [END_OF_TEXT])


def test_facts_of_a_vocabulary_of_real_text(data_dir: Path) -> None:
    path = data_dir / "tinystories-valid.txt"
    vocab, merges = train_bpe(path, 2_048, [END_OF_TEXT])
    assert len(vocab) == len(set(vocab.values())) == 2_048
    counts = count_pretokens(path.read_bytes(), pattern=GPT2_PATTERN, special_tokens=[END_OF_TEXT])
    assert merges[:10] == naive_merges(counts.as_counter(), 10)
    assert vocabulary(merges, [END_OF_TEXT]) == vocab
    assert max(vocab.values(), key=len) == END_OF_TEXT.encode()
    # A merge only ever joins tokens that exist by then, and no token holds text of two words.
    known = {bytes([byte]) for byte in range(256)}
    for left, right in merges:
        assert {left, right} <= known
        known.add(left + right)
    assert not any(b" " in token.strip() for token in known)
    # Each token is what its own text encodes to: no merge is unreachable.
    tokenizer = Tokenizer(vocab, merges, [END_OF_TEXT])
    assert all(tokenizer.encode_bytes(data) == [token] for token, data in vocab.items())
