import base64
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
import tiktoken
from hypothesis import given
from tiktoken.load import load_tiktoken_bpe

from lmray.errors import CorruptionError, UsageError
from lmray.tokenizer import END_OF_TEXT, GPT2_PATTERN, Tokenizer
from lmray.tokenizer.tiktoken_files import merges_of, read_ranks, write_ranks
from tests.tokenizer.random_tokenizers import (
    in_merge_order,
    learnt_merges,
    made_up_merges,
    seeds,
    some_specials,
    text_of,
)
from tests.tokenizer.samples import small_tokenizer

BYTES = {bytes([byte]): byte for byte in range(256)}


def as_tiktoken(ranks: dict[bytes, int], special_ids: dict[str, int]) -> tiktoken.Encoding:
    return tiktoken.Encoding(
        "test", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=special_ids
    )


@given(seeds)
def test_tiktoken_loads_the_file_and_gives_the_same_ids(draw: Random) -> None:
    # tiktoken does not take the longest of special tokens that begin alike.
    specials = [token for token in some_specials(draw) if "pause" not in token]
    tokenizer = in_merge_order(draw, learnt_merges(draw), specials)
    with TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.tiktoken")
        write_ranks(path, tokenizer)
        ranks = load_tiktoken_bpe(str(path))
    assert ranks == read_back(tokenizer)
    text = text_of(draw)
    expected = as_tiktoken(ranks, tokenizer.special_ids).encode(text, allowed_special="all")
    assert tokenizer.encode(text) == expected


def read_back(tokenizer: Tokenizer) -> dict[bytes, int]:
    made = {left + right for left, right in tokenizer.merges}
    return {data: i for i, data in tokenizer.vocab.items() if len(data) == 1 or data in made}


@given(seeds)
def test_any_ranks_are_refused_or_read_so_that_ids_are_tiktokens(draw: Random) -> None:
    """Ranks of made-up merges: what tiktoken does with them need not be what those merges do."""
    tokens = [left + right for left, right in made_up_merges(draw)]
    ranks = BYTES | {token: 256 + place for place, token in enumerate(tokens)}
    try:
        merges = merges_of(ranks)
    except UsageError:
        return
    tokenizer = Tokenizer({rank: token for token, rank in ranks.items()}, merges)
    encoding = as_tiktoken(ranks, {})
    for _ in range(5):
        text = text_of(draw)
        assert tokenizer.encode(text) == encoding.encode_ordinary(text)


def test_gpt2s_merges_come_out_of_its_ranks(gpt2: Tokenizer) -> None:
    assert merges_of({token: i for i, token in gpt2.vocab.items() if i < 50_256}) == gpt2.merges


def test_a_token_that_only_a_whole_pretoken_becomes_is_refused() -> None:
    ranks = BYTES | {b"bc": 256, b"abc": 257, b"ab": 258, b"xyz": 259}
    assert as_tiktoken(ranks, {}).encode("xyz xyzx") == [259, 32, 120, 121, 122, 120]
    message = r"no merges lead to 1 tokens, the first of which is rank 259, b'xyz'"
    with pytest.raises(UsageError, match=message):
        merges_of(ranks)
    del ranks[b"xyz"]
    assert merges_of(ranks) == [(b"b", b"c"), (b"a", b"bc"), (b"a", b"b")]


def line(token: bytes, rank: int) -> bytes:
    return base64.b64encode(token) + b" %d\n" % rank


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (line(b"a", 0) + line(b"b", 0), r"x.tiktoken:2 has rank 0 once more"),
        (line(b"a", 0) + line(b"a", 1), r"x.tiktoken:2 has token b'a' once more"),
        (line(b"a", 0) + b"YWI=", r":2 is not a token in base64, a space and a rank: 'YWI='"),
        (line(b"a", 0) + b"YWI= ", r":2 is not a token in base64"),
        (b"YWI 1\n", r":1 is not a token in base64"),
        (b"Y*I= 1\n", r":1 is not a token in base64"),
        (b"YWI= -1\n", r":1 is not a token in base64"),
        (b"YWI= 1 2\n", r":1 is not a token in base64"),
        (b"YWI= 99999999999\n", r":1 is not a token in base64"),
        (b"YWI= 2147483648\n", r":1 is not a token in base64"),
        (b" 1\n", r":1 is not a token in base64"),
        (b"\xff\xfe 1\n", r":1 is not a token in base64"),
        (b"\n", "has no ranks; give a .tiktoken file"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_bytes(content)
    with pytest.raises(CorruptionError, match=message):
        read_ranks(path)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_ranks(tmp_path / "absent")


def test_a_file_torn_anywhere_in_its_last_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    write_ranks(path, small_tokenizer())
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for missing in range(2, last):
        path.write_bytes(whole[:-missing])
        with pytest.raises(CorruptionError):
            read_ranks(path)


AB, BC, ABC = (b"a", b"b"), (b"b", b"c"), (b"ab", b"c")


@pytest.mark.parametrize(
    ("made", "merges", "message"),
    [
        ({257: b"ab", 256: b"bc"}, [AB, BC], "merge 1 makes id 256 after 257: ids are not in the"),
        ({256: b"ab", 257: b"abc", 258: b"q q"}, [AB, ABC], r"no merge makes id 258, b'q q', but"),
        ({256: b"bc", 257: b"ab", 258: b"abc"}, [BC, AB, ABC], "would make b.abc. from b.a. "),
        ({256: b"abc", 257: b"ab", 258: b"bc", 259: b"zabc"},
         [(b"a", b"bc"), AB, BC, (b"z", b"abc")], "would make b.abc. from b.ab. "),
    ],
)  # fmt: skip
def test_merges_that_ranks_do_not_express_are_refused_with_the_reason(
    tmp_path: Path, made: dict[int, bytes], merges: list[tuple[bytes, bytes]], message: str
) -> None:
    tokenizer = Tokenizer({byte: bytes([byte]) for byte in range(256)} | made, merges)
    with pytest.raises(UsageError, match=rf"{message}.*use the huggingface format"):
        write_ranks(tmp_path / "x.tiktoken", tokenizer)
    assert not list(tmp_path.iterdir())


def test_special_tokens_are_left_out_unless_merges_make_them(tmp_path: Path) -> None:
    vocab = {byte: bytes([byte]) for byte in range(256)} | {256: b"ab", 257: b"abc"}
    tokenizer = Tokenizer(vocab, [AB, ABC], ["ab", END_OF_TEXT])
    write_ranks(tmp_path / "x.tiktoken", tokenizer)
    assert read_ranks(tmp_path / "x.tiktoken") == BYTES | {b"ab": 256, b"abc": 257}
