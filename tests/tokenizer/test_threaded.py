"""Whatever the number of threads and wherever the text is cut, the ids are those of the whole."""

import threading
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st

from lmray.errors import CorruptionError, UsageError
from lmray.tokenizer import END_OF_TEXT, Tokenizer, native
from lmray.tokenizer.parts import gather, parts
from tests.tokenizer.samples import PAUSE, SPECIALS, TEXT, hard_text, small_tokenizer
from tests.tokenizer.test_kernels import any_bytes


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels at once, and parts of a few bytes."""
    monkeypatch.setattr(native, "WORTH_BYTES", 0)
    monkeypatch.setattr("lmray.tokenizer.threaded.LEAST_PART", 1)
    monkeypatch.setattr("lmray.tokenizer.threaded.MOST_PART", 40)
    monkeypatch.setattr("lmray.tokenizer.threaded.GROUP_CHARACTERS", 40)


def cut(data: bytes, *, part_bytes: int, special_tokens: list[str]) -> list[bytes]:
    found = parts(
        lambda start, end: data[start:end], len(data), special_tokens, part_bytes=part_bytes
    )
    return [data[start:end] for start, end in found]


@given(any_bytes, st.integers(1, 60), st.integers(1, 9))
@example(f"a {PAUSE} b".encode(), 1, 4)
def test_parts_encode_as_the_whole(data: bytes, part_bytes: int, window: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmray.tokenizer.parts._WINDOW", window)
        pieces = cut(data, part_bytes=part_bytes, special_tokens=SPECIALS)
    assert b"".join(pieces) == data
    assert all(len(piece) >= part_bytes for piece in pieces[:-1])
    tokenizer = small_tokenizer()
    assert [i for piece in pieces for i in tokenizer.encode_bytes(piece)] == (
        tokenizer.encode_bytes(data)
    )


def test_parts_are_hardly_longer_than_asked_for() -> None:
    data = (TEXT * 200).encode()
    pieces = cut(data, part_bytes=1000, special_tokens=SPECIALS)
    assert max(map(len, pieces)) < 1040
    assert len(pieces) > len(data) / 1040


def test_no_part_cuts_a_special_token_that_holds_a_letter_before_a_space() -> None:
    data = b"<a b>" * 50 + b"c d" + b"<a b>" * 50
    assert cut(data, part_bytes=7, special_tokens=["<a b>"]) == [data[:251], data[251:]]
    assert len(cut(data, part_bytes=7, special_tokens=[])) > 20
    tokenizer = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [], ["<a b>"])
    assert tokenizer.encode_to_numpy(data, num_threads=2).tolist() == tokenizer.encode_bytes(data)


def test_text_without_a_safe_place_is_one_part() -> None:
    for data in (b"", b"a" * 5000, b" .\n" * 3000, "\u6771".encode() * 3000):
        assert cut(data, part_bytes=10, special_tokens=[]) == ([data] if data else [])
    letters = "\u6771\n".encode() * 3000
    assert max(map(len, cut(letters, part_bytes=10, special_tokens=[]))) <= 13


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=30), st.integers(0, 1 << 30)
)
def test_gathered_parts_are_one_array(lengths: list[tuple[int, int]], seed: int) -> None:
    generator = np.random.default_rng(seed)
    arrays = [generator.integers(0, 999, size=n).astype(np.uint16) for n, _bytes in lengths]
    ends = np.cumsum([size for _n, size in lengths]).tolist()
    found = gather(zip(ends, arrays, strict=True), ends[-1] if ends else 0, "uint16")
    assert found.dtype == np.uint16
    assert found.tolist() == [i for array in arrays for i in array.tolist()]


@given(any_bytes, st.integers(1, 4))
def test_one_text_with_any_number_of_threads(data: bytes, num_threads: int) -> None:
    found = small_tokenizer().encode_to_numpy(data, num_threads=num_threads)
    assert found.dtype == np.uint16
    assert found.tolist() == small_tokenizer().encode_bytes(data)


@given(st.lists(hard_text, max_size=8), st.integers(1, 3), st.booleans())
@example(["<|endof", "text|>", "", END_OF_TEXT, "\ud83d", "\ude42"], 1, True)
@example([""], 2, True)
@example([], 2, True)
def test_a_batch_is_each_text_encoded(texts: list[str], num_threads: int, kernels: bool) -> None:
    tokenizer = small_tokenizer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "worth_it", lambda _pattern, _bytes: kernels)
        batch = tokenizer.encode_batch(texts, num_threads=num_threads)
    assert [ids.tolist() for ids in batch] == [tokenizer.encode(text) for text in texts]
    assert {str(ids.dtype) for ids in batch} <= {"uint16"}


def test_an_array_of_a_batch_holds_no_other_texts() -> None:
    (one, _other) = small_tokenizer().encode_batch(["there", "gather " * 1000], num_threads=1)
    assert one.base is None


@given(any_bytes)
def test_a_file_is_its_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "text"
    path.write_bytes(data)
    expected = small_tokenizer().encode_bytes(data)
    for num_threads in (1, 3):
        found = small_tokenizer().encode_file(path, num_threads=num_threads)
        assert found.dtype == np.uint16
        assert found.tolist() == expected


def test_a_pattern_without_kernels_gets_the_same_ids(tmp_path: Path) -> None:
    trained = small_tokenizer()
    other = Tokenizer(trained.vocab, trained.merges, SPECIALS, pattern=r"\S+|\s+")
    (tmp_path / "text").write_text(TEXT * 3)
    assert other.encode_file(tmp_path / "text").tolist() == other.encode(TEXT * 3)
    assert other.encode_to_numpy(TEXT * 3, num_threads=2).tolist() == other.encode(TEXT * 3)
    batch = other.encode_batch([TEXT, PAUSE])
    assert [ids.tolist() for ids in batch] == [other.encode(TEXT), other.encode(PAUSE)]


def test_a_file_that_cannot_be_encoded_says_why(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    with pytest.raises(UsageError, match=r"cannot read .*absent"):
        tokenizer.encode_file(tmp_path / "absent")
    text = TEXT + "\n" + PAUSE + TEXT
    (tmp_path / "text").write_text(text)
    place = len((TEXT + "\n").encode())
    for num_threads in (1, 2):
        with pytest.raises(UsageError, match=rf"'<\|pause\|>' at byte {place:,},"):
            tokenizer.encode_file(
                tmp_path / "text", disallowed_special=[PAUSE], num_threads=num_threads
            )


def test_a_file_that_shrinks_meanwhile_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_text(TEXT)
    monkeypatch.setattr("lmray.tokenizer.threaded.file_size", lambda path: len(TEXT.encode()) + 9)
    with pytest.raises(CorruptionError, match="the file changed under the run"):
        small_tokenizer().encode_file(tmp_path / "text", num_threads=2)


def test_threads_that_share_a_tokenizer_do_not_share_a_cache() -> None:
    tokenizer = small_tokenizer()
    texts = [(f"there{n} gather " * 400).encode() for n in range(4)]
    expected = [tokenizer.encode_bytes(text) for text in texts]
    found: dict[int, list[bool]] = {}
    together = threading.Barrier(4, timeout=20)

    def run(number: int) -> None:
        together.wait()
        same = [tokenizer.encode_bytes(texts[number]) == expected[number] for _ in range(20)]
        found[number] = same

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [True] * 20 for number in range(4)}
    encoder = tokenizer._encoder.native(0)
    assert encoder is not None
    assert 1 <= len(encoder._idle) <= 4


def test_real_files_on_two_threads_as_tiktoken(
    data_dir: Path,
    gpt2: Tokenizer,
    gpt2_tiktoken: tiktoken.Encoding,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lmray.tokenizer.threaded.LEAST_PART", 1)
    monkeypatch.setattr("lmray.tokenizer.threaded.MOST_PART", 10_000)
    for name in ("tinystories-valid.txt", "webtext-valid.txt"):
        text = (data_dir / name).read_text()
        expected = gpt2_tiktoken.encode_to_numpy(text, allowed_special="all")
        assert np.array_equal(gpt2.encode_file(data_dir / name, num_threads=2), expected)
        documents = text.split(END_OF_TEXT)
        batch = gpt2.encode_batch(documents, num_threads=2)
        assert [ids.tolist() for ids in batch] == gpt2_tiktoken.encode_ordinary_batch(documents)
