import json
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given

from lmray.errors import CorruptionError, UsageError
from lmray.tokenizer import END_OF_TEXT, Tokenizer, save_tokenizer
from lmray.tokenizer.formats import FORMATS, detect, read_tokenizer, special_ids, write_tokenizer
from tests.tokenizer.random_tokenizers import (
    in_any_order,
    in_merge_order,
    learnt_merges,
    made_up_merges,
    seeds,
    some_specials,
    text_of,
)
from tests.tokenizer.samples import PAUSE, SPECIALS, TEXT, small_tokenizer


def with_ids(tokenizer: Tokenizer) -> list[str]:
    return [f"{token}={number}" for token, number in tokenizer.special_ids.items()]


def there_and_back(tokenizer: Tokenizer, format: str) -> Tokenizer:
    with TemporaryDirectory() as folder:
        paths = write_tokenizer(tokenizer, Path(folder, "out"), format=format)
        found, files = detect(paths[::-1])
        assert (found, files) == (format, paths)
        if format == "huggingface":
            return read_tokenizer(files, format=found)
        return read_tokenizer(files, format=found, special_tokens=with_ids(tokenizer))


def check_round_trip(tokenizer: Tokenizer, format: str, draw: Random) -> None:
    again = there_and_back(tokenizer, format)
    assert again.fingerprint == tokenizer.fingerprint
    text = text_of(draw)
    assert again.encode(text) == tokenizer.encode(text)


@given(seeds)
def test_gpt2_files_hold_any_tokenizer_with_gpt2s_pattern(draw: Random) -> None:
    check_round_trip(in_any_order(draw, made_up_merges(draw), some_specials(draw)), "gpt2", draw)


@given(seeds)
def test_tiktoken_ranks_hold_what_was_learnt_by_merging(draw: Random) -> None:
    tokenizer = in_merge_order(draw, learnt_merges(draw), some_specials(draw))
    check_round_trip(tokenizer, "tiktoken", draw)


@given(seeds)
def test_huggingface_files_hold_any_tokenizer(draw: Random) -> None:
    tokenizer = in_any_order(draw, made_up_merges(draw), some_specials(draw))
    check_round_trip(tokenizer, "huggingface", draw)


@pytest.mark.parametrize("format", FORMATS)
def test_gpt2s_own_vocabulary_comes_back(gpt2: Tokenizer, format: str) -> None:
    assert there_and_back(gpt2, format).fingerprint == gpt2.fingerprint


def test_gpt2s_own_files_are_found_in_either_order(data_dir: Path, gpt2: Tokenizer) -> None:
    files = [data_dir / "gpt2_vocab.json", data_dir / "gpt2_merges.txt"]
    assert detect(files) == detect(files[::-1]) == ("gpt2", files)
    assert read_tokenizer(files, format="gpt2").fingerprint == gpt2.fingerprint


def test_special_tokens_have_their_ids_or_the_next() -> None:
    vocab = {0: b"a", 1: b"<x>", 7: b"b"}
    assert special_ids(["<x>", "<y>", "<z>"], vocab) == {"<x>": 1, "<y>": 8, "<z>": 9}
    assert special_ids(["<y>=20", "<z>", "<a=b>"], vocab) == {"<y>": 20, "<z>": 21, "<a=b>": 22}
    assert special_ids(["<x>=1", "<y>=2"], vocab) == {"<x>": 1, "<y>": 2}
    with pytest.raises(
        UsageError, match=r"'<y>' cannot have id 7, which is b'b'; leave the id out"
    ):
        special_ids(["<y>=7"], vocab)
    with pytest.raises(UsageError, match=r"'<x>' cannot have id 5, which is not 1, its own"):
        special_ids(["<x>=5"], vocab)


@pytest.mark.parametrize("format", FORMATS)
def test_bytes_that_are_no_token_are_not_exported(tmp_path: Path, format: str) -> None:
    tokenizer = Tokenizer({0: b"a", 1: b"b"}, [], [END_OF_TEXT])
    with pytest.raises(
        UsageError, match=r"254 of the 256 bytes are no token \(the first is b'\\x00"
    ):
        write_tokenizer(tokenizer, tmp_path, format=format)


@pytest.mark.parametrize("format", FORMATS)
def test_a_merge_that_is_listed_twice_is_not_exported(tmp_path: Path, format: str) -> None:
    vocab = {token: bytes([token]) for token in range(256)} | {256: b"ab", 257: b"ba"}
    tokenizer = Tokenizer(vocab, [(b"a", b"b"), (b"b", b"a"), (b"a", b"b")])
    with pytest.raises(UsageError, match="a merge is listed twice"):
        write_tokenizer(tokenizer, tmp_path, format=format)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_is_there_is_not_replaced(tmp_path: Path, format: str) -> None:
    path = tmp_path / FORMATS[format].files[-1]
    path.write_text("mine")
    with pytest.raises(UsageError, match=f"{path.name} is there already; choose another folder"):
        write_tokenizer(small_tokenizer(), tmp_path, format=format)
    assert [path.read_text()] == [file.read_text() for file in tmp_path.iterdir()]


def test_what_is_in_no_known_format_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "tokenizer.json"
    save_tokenizer(small_tokenizer(), own, corpus_digest="c0ffee")
    with pytest.raises(UsageError, match=r"is lmray's own tokenizer.json; use its folder"):
        detect([own])
    vocab = write_tokenizer(small_tokenizer(), tmp_path / "gpt2", format="gpt2")[0]
    for files in ([vocab], [vocab] * 3):
        with pytest.raises(UsageError, match="not the files of a known tokenizer format"):
            detect(files)
    with pytest.raises(UsageError, match="cannot read"):
        detect([tmp_path / "absent"])
    with pytest.raises(UsageError, match="unknown tokenizer format 'bpe'; choose gpt2, tiktoken"):
        read_tokenizer([own], format="bpe")
    with pytest.raises(UsageError, match=r"1 files are not .*; give vocab.json and merges.txt"):
        read_tokenizer([vocab], format="gpt2")


@pytest.mark.parametrize("lines", [1, 50, 99])
def test_a_merges_txt_cut_at_a_line_is_refused(tmp_path: Path, lines: int) -> None:
    files = write_tokenizer(small_tokenizer(), tmp_path, format="gpt2")
    whole = files[1].read_text().splitlines(keepends=True)
    assert len(whole) == 1 + 360 - 256 - 3
    files[1].write_text("".join(whole[:lines]))
    with pytest.raises(
        UsageError, match=rf"no merge makes {102 - lines} tokens of vocab.json, the"
    ):
        read_tokenizer(files, format="gpt2", special_tokens=SPECIALS)
    files[1].write_text("".join(whole))
    with pytest.raises(UsageError, match=r"no merge makes 2 tokens .* special tokens with --spec"):
        read_tokenizer(files, format="gpt2")


def test_merges_of_unknown_tokens_are_refused(tmp_path: Path) -> None:
    files = write_tokenizer(small_tokenizer(), tmp_path, format="gpt2")
    with files[1].open("a") as file:
        file.write("q q\n")
    with pytest.raises(UsageError, match="needs b'qq', which is not in the vocabulary"):
        read_tokenizer(files, format="gpt2", special_tokens=SPECIALS)


def test_gpt2_files_mean_gpt2s_pattern(tmp_path: Path) -> None:
    vocab = {token: bytes([token]) for token in range(256)}
    with pytest.raises(UsageError, match="mean GPT-2's split pattern, and this tokenizer has anot"):
        write_tokenizer(Tokenizer(vocab, [], pattern=r"\s+|\S+"), tmp_path, format="gpt2")
    files = write_tokenizer(small_tokenizer(), tmp_path, format="gpt2")
    with pytest.raises(UsageError, match="mean GPT-2's split pattern; leave --pattern out"):
        read_tokenizer(files, format="gpt2", special_tokens=SPECIALS, pattern=r"\s+|\S+")


@pytest.mark.parametrize("format", ["gpt2", "huggingface"])
def test_a_special_token_that_reads_like_a_byte_is_refused(tmp_path: Path, format: str) -> None:
    vocab = {token: bytes([token]) for token in range(256)}
    with pytest.raises(UsageError, match="ids 233 and 256 would both be written as 'é'"):
        write_tokenizer(Tokenizer(vocab, [], ["é"]), tmp_path, format=format)


def test_impossible_special_tokens_and_patterns_are_refused(tmp_path: Path) -> None:
    files = write_tokenizer(small_tokenizer(), tmp_path, format="tiktoken")
    for specials, pattern, message in (
        (["\udcff"], r"\S+|\s+", "not valid Unicode"),
        ([PAUSE, f"{PAUSE}=900"], r"\S+|\s+", "more than once"),
        ([PAUSE], "(", "not a regular expression"),
    ):
        with pytest.raises(UsageError, match=message):
            read_tokenizer(files, format="tiktoken", special_tokens=specials, pattern=pattern)


def test_a_tiktoken_file_takes_pattern_and_special_tokens(tmp_path: Path) -> None:
    files = write_tokenizer(small_tokenizer(), tmp_path, format="tiktoken")
    specials = with_ids(small_tokenizer())
    again = read_tokenizer(files, format="tiktoken", special_tokens=specials, pattern=r"\S+|\s+")
    assert again.pattern == r"\S+|\s+"
    assert again.special_ids == small_tokenizer().special_ids
    assert again.encode(TEXT) != small_tokenizer().encode(TEXT)


def test_a_torn_tokenizer_json_is_refused(tmp_path: Path) -> None:
    files = write_tokenizer(small_tokenizer(), tmp_path, format="huggingface")
    whole = files[0].read_text()
    files[0].write_text(whole[: len(whole) // 2])
    with pytest.raises(CorruptionError, match="not valid JSON"):
        detect(files)
    files[0].write_text(json.dumps({"model": []}))
    with pytest.raises(UsageError, match="not the files of a known tokenizer format"):
        detect(files)
    with pytest.raises(CorruptionError, match="it has no model"):
        read_tokenizer(files, format="huggingface")
