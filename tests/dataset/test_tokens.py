import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmray.corpus import SEPARATOR
from lmray.dataset import open_split, open_splits, read_manifest
from lmray.errors import CorruptionError, PreflightError, UsageError
from lmray.tokenizer import END_OF_TEXT, Tokenizer
from tests.dataset.samples import TRAIN, VALID, stored_ids, tokenizer, write_tokenizer


@settings(deadline=None)
@given(st.data())
def test_reading_is_slicing_the_concatenated_shards(built: Path, data: st.DataObject) -> None:
    dataset = open_split(built / "train")
    whole = np.array(stored_ids(built / "train"))
    borders = np.cumsum([0, *(row.tokens for row in dataset.manifest.shards)]).tolist()
    position = st.integers(0, len(whole)) | st.sampled_from(borders)
    start, stop = sorted(data.draw(st.tuples(position, position)))
    found = dataset.read(start, stop)
    assert found.dtype == np.int64
    assert found.tolist() == whole[start:stop].tolist()


def test_all_of_it_is_the_text(built: Path) -> None:
    splits = open_splits(built)
    for split, text in ((splits.train, TRAIN), (splits.valid, VALID)):
        assert len(split.manifest.shards) > 1 or text is VALID
        assert splits.tokenizer.decode_bytes(split.read(0, len(split)).tolist()) == text


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (5, 4), (0, 10**9)])
def test_positions_outside_the_split_are_no_positions(built: Path, start: int, stop: int) -> None:
    with pytest.raises(IndexError, match=rf"positions {start}:{stop} are not within the \d+ tok"):
        open_split(built / "train").read(start, stop)


def test_document_ends_cut_the_tokens_into_the_documents(built: Path) -> None:
    split = open_split(built / "train")
    ends = split.document_ends.tolist()
    ids = split.read(0, len(split)).tolist()
    texts = [
        tokenizer().decode_bytes(ids[start:end])
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    *documents, tail = TRAIN.split(SEPARATOR)
    assert tail.isspace()
    assert texts == [document + SEPARATOR for document in documents]


def test_token_bytes_add_up_to_the_text(built: Path) -> None:
    split = open_split(built / "train")
    assert split.token_bytes[split.read(0, len(split))].sum() == len(TRAIN)


def test_a_whole_dataset_is_verified(built: Path) -> None:
    splits = open_splits(built)
    splits.train.verify()
    splits.valid.verify()


FILES = ["shard-00000.npy", "shard-00001.npy", "ends-00000.npy", "ends-00001.npy"]


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(FILES), st.integers(0, 127) | st.integers(0, 10_000), st.integers(0, 7))
@example(name="shard-00001.npy", place=10, bit=0)  # NumPy's header parser: TokenError
@example(name="shard-00001.npy", place=21, bit=4)  # SyntaxError
def test_a_flipped_bit_is_noticed(built: Path, name: str, place: int, bit: int) -> None:
    """On opening where it is in a header, else on verifying."""
    path = built / "train" / name
    whole = path.read_bytes()
    data = bytearray(whole)
    data[place % len(data)] ^= 1 << bit
    try:
        path.write_bytes(data)
        with pytest.raises(CorruptionError, match=rf"{name} is not the file its manifest records"):
            open_split(built / "train").verify()
    finally:
        path.write_bytes(whole)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def widen(path: Path) -> None:
    np.save(path, np.load(path).astype(np.uint32))


def turn_bytes(path: Path) -> None:
    np.save(path, np.load(path).astype(">u2"))


def fold(path: Path) -> None:
    np.save(path, np.load(path)[None])


def shorten(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


def pickle(path: Path) -> None:
    np.save(path, np.array([{}]), allow_pickle=True)


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (Path.unlink, r"\(missing; recorded \(\d+,\) uint16\)"),
    (truncate, r"\(truncated or no .npy file: mmap length is greater than file size; "),
    (empty, r"\(truncated or no .npy file: EOF"),
    (widen, r"\(\(\d+,\) uint32; recorded \(\d+,\) uint16\)"),
    (turn_bytes, r"\(\(\d+,\) >u2; recorded"),
    (fold, r"\(\(1, \d+\) uint16; recorded"),
    (shorten, r"\(\(\d+,\) uint16; recorded"),
    (pickle, r"\(truncated or no .npy file: .*Python objects"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_shard_is_refused_on_opening(
    spoilt: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(spoilt / "train" / "shard-00001.npy")
    with pytest.raises(CorruptionError, match=rf"shard-00001.npy is not the file.*{message}") as e:
        open_splits(spoilt)
    assert str(e.value).endswith(
        f"delete {spoilt / 'train'} and make it again with `lmray data build`"
    )


@pytest.mark.parametrize("damage", [Path.unlink, truncate, empty, shorten])
def test_damaged_document_ends_are_refused_on_reading(
    spoilt: Path, damage: Callable[[Path], None]
) -> None:
    damage(spoilt / "train" / "ends-00001.npy")
    split = open_split(spoilt / "train")
    with pytest.raises(CorruptionError, match=r"ends-00001.npy is not the file its manifest"):
        _ = split.document_ends
    with pytest.raises(CorruptionError, match=r"ends-00001.npy is not the file its manifest"):
        split.verify()


def test_an_id_outside_the_vocabulary_is_noticed_although_its_checksum_is_right(
    spoilt: Path,
) -> None:
    def narrow(manifest: dict[str, Any]) -> None:
        manifest["vocab_size"] = 300

    alter_manifest(spoilt, narrow)
    with pytest.raises(
        CorruptionError, match=r"\(an id of 3\d\d; recorded ids below vocab_size=300"
    ):
        open_split(spoilt / "train").verify()


def alter_manifest(directory: Path, change: Callable[[Any], object]) -> None:
    path = directory / "train" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(tokens=m["tokens"] + 1), r"tokens=\d+, its shards sum to \d+"),
        (lambda m: m.update(bytes="7"), r"bytes=7, its shards sum to \d+"),
        (lambda m: m.update(documents=0), r"documents=0, its shards sum to \d+"),
        (lambda m: m.pop("documents"), r"documents=missing, its shards sum to"),
        (lambda m: m["shards"].pop(), r"tokens=\d+, its shards sum to \d+"),
        (lambda m: m["shards"].reverse(), r"its shards are not numbered 0, 1, 2"),
        (lambda m: m["shards"][1].pop("sha256"), r"shards.1.sha256=.*: Field required"),
        (lambda m: m["shards"][1].update(tokens="3"), r"shards.1.tokens='3': .*valid integer"),
        (lambda m: m.update(dtype="int8"), r"dtype='int8': .*'uint16' or 'uint32'"),
        (lambda m: m.update(format_version=2), r"format_version=2: Input should be 1"),
        (lambda m: m.update(extra=1), r"extra=1: Extra inputs are not permitted"),
    ],
)
def test_an_altered_manifest_is_refused(
    spoilt: Path, change: Callable[[Any], object], message: str
) -> None:
    alter_manifest(spoilt, change)
    with pytest.raises(CorruptionError, match=rf"is damaged or not of version 1 \({message}") as e:
        open_splits(spoilt)
    assert len(str(e.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null"])
def test_a_manifest_that_is_something_else_is_refused(spoilt: Path, text: str) -> None:
    (spoilt / "valid" / "manifest.json").write_text(text)
    with pytest.raises(CorruptionError, match=r"manifest.json is (damaged|not valid JSON)"):
        open_splits(spoilt)


def test_what_is_not_there_is_refused_before_the_start(spoilt: Path, tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"no token dataset at .*/none; make one with `lmray"):
        open_splits(tmp_path / "none")
    with pytest.raises(PreflightError, match=r"no token dataset in .*/none: manifest.json is mi"):
        open_split(tmp_path / "none")
    (spoilt / "valid" / "manifest.json").unlink()
    with pytest.raises(PreflightError, match=r"no token dataset in .*/valid: manifest.json is mi"):
        open_splits(spoilt)


def test_shards_of_another_tokenizer_are_refused(spoilt: Path) -> None:
    vocab = {token: bytes([token]) for token in range(256)}
    other = Tokenizer(vocab, [], [END_OF_TEXT])
    write_tokenizer(spoilt / "tokenizer.json", other)
    message = (
        rf"train was encoded by tokenizer {tokenizer().fingerprint[:12]}, but .*tokenizer.json "
        rf"is {other.fingerprint[:12]}; encode it again with `lmray data build`"
    )
    for opening in (lambda: open_splits(spoilt), lambda: open_split(spoilt / "train")):
        with pytest.raises(PreflightError, match=message):
            opening()


def test_a_missing_tokenizer_is_refused(spoilt: Path) -> None:
    (spoilt / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"cannot read tokenizer .*spoilt/tokenizer.json"):
        open_splits(spoilt)


def test_the_digest_changes_with_the_tokens_of_either_split(spoilt: Path, built: Path) -> None:
    whole = open_splits(built).digest
    assert open_splits(spoilt).digest == whole
    digests = {whole}
    for split in ("train", "valid"):
        path = spoilt / split / "manifest.json"
        row = read_manifest(spoilt / split).shards[-1]
        path.write_text(path.read_text().replace(row.sha256, "0" * 64))
        digests.add(open_splits(spoilt).digest)
    assert len(digests) == 3
