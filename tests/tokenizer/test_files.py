import json
from pathlib import Path

import pytest

from lmray.errors import CorruptionError, UsageError
from lmray.tokenizer import Tokenizer, load_tokenizer, save_tokenizer
from lmray.tokenizer.gpt2_files import read_merges, read_vocab, write_merges, write_vocab
from tests.tokenizer.samples import SPECIALS, TEXT, small_tokenizer


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "small" / "tokenizer.json"
    save_tokenizer(small_tokenizer(), path, corpus_digest="c0ffee")
    return path


def alter(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_saved_tokenizer_is_the_same(saved: Path) -> None:
    loaded, original = load_tokenizer(saved), small_tokenizer()
    assert loaded.fingerprint == original.fingerprint
    assert (loaded.vocab, loaded.merges) == (original.vocab, original.merges)
    assert (loaded.special_tokens, loaded.pattern) == (original.special_tokens, original.pattern)
    assert loaded.encode(TEXT) == original.encode(TEXT)


def test_the_file_says_what_it_is(saved: Path) -> None:
    record = json.loads(saved.read_text())
    assert record["corpus_digest"] == "c0ffee"
    assert record["tie_break"] == "lexicographically greatest pair of byte strings"
    assert record["merges"][0] == " ".join(part.hex() for part in small_tokenizer().merges[0])
    assert record["probe"]["ids"] == small_tokenizer().encode(record["probe"]["text"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pattern": r"\S+|\s+"}, "was altered: its fingerprint"),
        ({"merges": []}, "was altered: its fingerprint"),
        ({"fingerprint": "0" * 64}, "was altered: its fingerprint"),
        ({"probe": {"text": "there", "ids": [1]}}, "encodes its probe text to other ids"),
        ({"merges": ["zz"]}, "is damaged"),
        ({"vocab": []}, "is damaged"),
        ({"special_tokens": 3}, "is damaged"),
        ({"version": 2}, "format version 2, this lmray reads 1"),
        ({"format": "other"}, "is not a lmray-tokenizer file"),
    ],
)
def test_an_altered_file_is_refused(saved: Path, changes: dict[str, object], message: str) -> None:
    alter(saved, **changes)
    with pytest.raises(CorruptionError, match=message):
        load_tokenizer(saved)


def test_a_torn_or_missing_file_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:500])
    with pytest.raises(CorruptionError, match="not valid JSON"):
        load_tokenizer(saved)
    with pytest.raises(UsageError, match="cannot read tokenizer"):
        load_tokenizer(saved.parent / "absent.json")


def test_gpt2_files_come_back(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    vocab, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    write_vocab(vocab, tokenizer.vocab, special_ids=tokenizer.special_ids.values())
    write_merges(merges, tokenizer.merges)
    again = Tokenizer.from_files(vocab, merges, SPECIALS)
    assert again.fingerprint == tokenizer.fingerprint


def test_gpt2_special_tokens_stand_as_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({"\u0120a": 0, "é": 1, "<a b>": 2}))
    assert read_vocab(path, special_tokens=[]) == {0: b" a", 1: b"\xe9", 2: b"<a b>"}
    assert read_vocab(path, special_tokens=["é"])[1] == "é".encode()


def test_gpt2_merges_may_begin_with_a_number_sign(tmp_path: Path) -> None:
    path = tmp_path / "merges.txt"
    path.write_text("#version: 0.2\n# #\n\u0120 a\n")
    assert read_merges(path) == [(b"#", b"#"), (b" ", b"a")]


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not valid JSON"), ("[]", "does not map tokens"), ('{"a": "b"}', "does not map tokens"),
     ('{"a": 1, "b": 1}', "one id to several tokens")],
)  # fmt: skip
def test_a_wrong_vocab_json_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(content)
    with pytest.raises(CorruptionError, match=message):
        read_vocab(path, special_tokens=[])


def test_a_wrong_merges_txt_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "merges.txt"
    path.write_text("#version: 0.2\na b\na b c\n")
    with pytest.raises(CorruptionError, match=r"merges\.txt:3 is not a merge of two tokens"):
        read_merges(path)
    path.write_bytes(b"\xff")
    with pytest.raises(CorruptionError, match="not UTF-8"):
        read_merges(path)
    with pytest.raises(UsageError, match="cannot read"):
        read_merges(tmp_path / "absent.txt")
