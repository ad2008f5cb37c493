from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiktoken

from lmray.errors import PreflightError
from lmray.tokenizer import END_OF_TEXT, Tokenizer, train_bpe
from lmray.tokenizer.report import count_ids, describe, measure, throughput, unused_merges
from tests.small import text
from tests.tokenizer.samples import SPECIALS, TEXT, small_tokenizer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("trained") / "train.txt"
    path.write_text(text(40, seed=1) + TEXT)
    vocab, merges = train_bpe(path, 380, [END_OF_TEXT])
    return Tokenizer(vocab, merges, [END_OF_TEXT])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "one.txt").write_text(text(30, seed=3))
    (tmp_path / "two.txt").write_bytes(
        "naïve \u6771\xff!\n".encode("latin-1", "replace") + b"\xe6\x9d"
    )
    return [tmp_path / "one.txt", tmp_path / "two.txt"]


def test_ids_are_counted_over_all_files_and_parts(
    trained: Tokenizer, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [i for path in files for i in trained.encode_bytes(path.read_bytes())]
    seen: list[tuple[int, int]] = []
    for part_bytes in (1, 500, 1 << 20):
        monkeypatch.setattr("lmray.tokenizer.report._RANGE_BYTES", part_bytes)
        counts = count_ids(
            trained, files, progress=lambda _phase, done, of, _unit: seen.append((done, of))
        )
        assert {n: c for n, c in enumerate(counts.tolist()) if c} == Counter(ids)
    size = sum(path.stat().st_size for path in files)
    assert seen[-1] == (size, size)


def test_without_separators_as_tokens_files_are_not_cut(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Tokenizer({byte: bytes([byte]) for byte in range(256)} | {256: b"|>"}, [(b"|", b">")])
    monkeypatch.setattr("lmray.tokenizer.report._RANGE_BYTES", 1)
    expected = [i for path in files for i in plain.encode_bytes(path.read_bytes())]
    assert count_ids(plain, files).tolist() == np.bincount(expected, minlength=257).tolist()


def test_a_corpus_is_what_its_bytes_and_ids_say(trained: Tokenizer, files: list[Path]) -> None:
    ids = [i for path in files for i in trained.encode_bytes(path.read_bytes())]
    tokens = [trained.vocab[i] for i in ids]
    found = measure(trained, "both", files)
    assert (found.corpus, found.tokens) == ("both", len(ids))
    assert found.bytes == sum(path.stat().st_size for path in files)
    assert found.bytes_per_token == found.bytes / found.tokens
    single = [token for token in tokens if len(token) == 1]
    assert found.single_bytes == len(single) / len(tokens)
    wide = sum(token >= b"\x80" for token in single)
    assert found.byte_fallback == wide / len(tokens) > 0
    assert found.mojibake == 0


def test_without_its_unused_merges_a_tokenizer_encodes_the_corpus_alike(
    trained: Tokenizer, files: list[Path]
) -> None:
    """And without any other that is never emitted it does not: the definition itself."""
    data = files[0].read_bytes()
    tokens = [trained.vocab[i] for i in trained.encode_bytes(data)]
    counts = np.bincount(trained.encode_bytes(data), minlength=trained.vocab_size)
    never, unused = unused_merges(trained, counts)
    assert {b"".join(pair) for pair in never} == (
        {left + right for left, right in trained.merges} - set(tokens)
    )

    def encoded_without(pairs: list[tuple[bytes, bytes]]) -> list[bytes]:
        kept = [pair for pair in trained.merges if pair not in pairs]
        smaller = Tokenizer(trained.vocab, kept, [END_OF_TEXT])
        return [smaller.vocab[i] for i in smaller.encode_bytes(data)]

    assert unused
    assert encoded_without(unused) == tokens
    parts = [pair for pair in never if pair not in unused]
    assert parts
    for pair in parts:
        assert encoded_without([pair]) != tokens
    usage = measure(trained, "", files[:1])
    assert (usage.unused, usage.never_emitted) == (len(unused), len(never))


def test_a_vocabulary_by_itself() -> None:
    tokenizer = small_tokenizer()
    found = describe(tokenizer)
    assert (found.ids, found.merges) == (360, 101)
    assert found.special_tokens == SPECIALS
    assert found.fingerprint == tokenizer.fingerprint
    ordinary = [
        data for data in tokenizer.vocab.values() if data.decode("utf-8", "replace") not in SPECIALS
    ]
    assert [size for size, _id, _token in found.longest] == sorted(map(len, ordinary))[:-11:-1]
    assert all(len(tokenizer.vocab[number]) == size for size, number, _token in found.longest)
    assert sum(found.kinds.values()) == 360
    assert found.kinds["special"] == 3
    assert found.kinds["parts of characters"] >= 128
    assert sum(found.lengths.values()) == 357
    assert found.lengths["1"] == 256
    assert found.lengths["5-6"] == sum(len(data) in (5, 6) for data in ordinary)
    assert found.mojibake == []


def test_the_published_vocabulary_has_mojibake(
    gpt2: Tokenizer, gpt2_tiktoken: tiktoken.Encoding, data_dir: Path
) -> None:
    found = describe(gpt2)
    assert found.longest[0] == (128, 35_496, "c3 83 c3 82 x 32")
    assert [size for size, _id, _token in found.mojibake] == [128, 64, 32, 16, 8, 4]
    path = data_dir / "webtext-valid.txt"
    usage = measure(gpt2, "web", [path])
    assert usage.tokens == len(gpt2_tiktoken.encode(path.read_text(), allowed_special="all"))


def test_throughput_says_what_it_means_for_the_pile(trained: Tokenizer, files: list[Path]) -> None:
    found = throughput(trained, files)
    assert found.bytes == files[0].stat().st_size
    assert found.one_mb_per_s > 0
    assert found.pile_hours_all == pytest.approx(825e9 / (found.all_mb_per_s * 1e6) / 3600)


def test_no_text_is_no_corpus(trained: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    for ask in (lambda: measure(trained, "", [tmp_path / "empty.txt"]),
                lambda: throughput(trained, [tmp_path / "empty.txt"])):  # fmt: skip
        with pytest.raises(PreflightError, match=r"no text in .*empty\.txt"):
            ask()
