"""A build that was killed, ran out of disk or met another: what the next one makes of it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lmray.corpus import SEPARATOR, Corpus
from lmray.dataset import build, make_shard, open_splits, run_here
from lmray.errors import PreflightError
from tests.dataset.samples import (
    TRAIN,
    VALID,
    contents,
    stored_ids,
    tokenizer,
    write_corpus,
)

SHARD_BYTES = 2000


def interrupt(corpus: Corpus, tokenizer_file: Path, target: Path, after: int) -> None:
    """Builds until `after` shards of train are whole."""

    class Interruption(Exception):
        pass

    def run(tasks):
        for task in tasks[:after]:
            yield make_shard(task)
        raise Interruption

    with pytest.raises(Interruption):
        build(corpus, tokenizer_file, target, shard_bytes=SHARD_BYTES, run_tasks=run)


def rebuild(corpus: Corpus, tokenizer_file: Path, target: Path) -> list[int]:
    """Builds; returns which shards of train had to be made."""
    made: list[int] = []

    def run(tasks):
        made.extend(task.index for task in tasks if task.directory.endswith("train"))
        return run_here(tasks)

    build(corpus, tokenizer_file, target, shard_bytes=SHARD_BYTES, run_tasks=run)
    return made


@pytest.fixture
def uninterrupted(corpus: Corpus, tokenizer_file: Path, tmp_path: Path) -> dict[str, bytes]:
    build(corpus, tokenizer_file, tmp_path / "whole", shard_bytes=SHARD_BYTES)
    return contents(tmp_path / "whole")


def test_an_interrupted_build_goes_on_where_it_stopped(
    corpus: Corpus, tokenizer_file: Path, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    target = tmp_path / "tokens"
    interrupt(corpus, tokenizer_file, target, after=2)
    with pytest.raises(PreflightError, match=r"manifest.json is missing; make it with"):
        open_splits(target)
    arrays = sorted((target / "train").glob("*.npy"))
    assert len(arrays) == 4
    before = {path: path.stat().st_mtime_ns for path in arrays}
    shards = len(list((tmp_path / "whole" / "train").glob("shard-*")))
    assert rebuild(corpus, tokenizer_file, target) == list(range(2, shards))
    assert {path: path.stat().st_mtime_ns for path in arrays} == before
    assert contents(target) == uninterrupted


@pytest.mark.parametrize("damage", ["shard", "ends", "row", "no shard", "no ends", "no row"])
def test_a_damaged_leftover_is_made_again(
    corpus: Corpus,
    tokenizer_file: Path,
    tmp_path: Path,
    uninterrupted: dict[str, bytes],
    damage: str,
) -> None:
    target = tmp_path / "tokens"
    interrupt(corpus, tokenizer_file, target, after=3)
    (rows,) = (target / "train").glob("rows-*")
    name = damage.removeprefix("no ")
    path = rows / "shard-00001.json" if name == "row" else target / "train" / f"{name}-00001.npy"
    if damage.startswith("no "):
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    assert rebuild(corpus, tokenizer_file, target)[0] == 1
    assert contents(target) == uninterrupted


def test_leftovers_of_another_shard_size_go(
    corpus: Corpus, tokenizer_file: Path, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    target = tmp_path / "tokens"
    with pytest.raises(KeyboardInterrupt):
        build(corpus, tokenizer_file, target, shard_bytes=300, progress=stop_at(len(TRAIN) - 500))
    (target / "train" / ".shard-00000.npy.abc.tmp").write_bytes(b"of a killed writer")
    assert len(list((target / "train").glob("shard-*"))) > 10
    rebuild(corpus, tokenizer_file, target)
    assert contents(target) == uninterrupted


def stop_at(position: int):
    def progress(phase: str, done: int, total: int, unit: str) -> None:
        if done >= position:
            raise KeyboardInterrupt

    return progress


DYING = """
import os, resource, signal, sys
from pathlib import Path
from lmray.corpus import Corpus
from lmray.dataset import build

folder, what, where = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])


def progress(phase, done, total, unit):
    if what == "kill" and done >= where:
        os.kill(os.getpid(), signal.SIGKILL)


if what == "fill":
    resource.setrlimit(resource.RLIMIT_FSIZE, (where, -1))
corpus = Corpus("sample", (folder / "corpus/train.txt",), (folder / "corpus/valid.txt",))
build(corpus, folder / "tokenizer.json", folder / "tokens", shard_bytes=2000, progress=progress)
"""


def die_building(folder: Path, what: str, where: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DYING, str(folder), what, str(where)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_build_goes_on_after_kill_9(
    corpus: Corpus, tokenizer_file: Path, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    done = die_building(tmp_path, "kill", len(TRAIN) // 2)
    assert done.returncode == -signal.SIGKILL
    made = len(list((tmp_path / "tokens" / "train").glob("shard-*")))
    assert rebuild(corpus, tokenizer_file, tmp_path / "tokens")[0] == made > 0
    assert contents(tmp_path / "tokens") == uninterrupted


def test_a_build_goes_on_after_a_full_disk(tokenizer_file: Path, tmp_path: Path) -> None:
    """The disk is full for a document that alone is larger than a file may be."""
    long = b" ".join([b"Ada sees a red ball."] * 8000) + SEPARATOR + b"\n"
    corpus = write_corpus(tmp_path / "corpus", TRAIN + long + TRAIN)
    done = die_building(tmp_path, "fill", tokenizer_file.stat().st_size + 1000)
    assert done.returncode == 1
    assert done.stderr.endswith("OSError: [Errno 27] File too large\n")
    train = tmp_path / "tokens" / "train"
    whole = {int(row.stem.removeprefix("shard-")) for row in train.glob("rows-*/*.json")}
    assert whole
    assert not list(train.glob(".*"))
    made = rebuild(corpus, tokenizer_file, tmp_path / "tokens")
    assert not whole & set(made)
    assert sorted([*whole, *made]) == list(range(len(whole) + len(made)))
    assert stored_ids(train) == tokenizer().encode_bytes(TRAIN + long + TRAIN)


def test_a_second_process_does_not_build_the_same(
    corpus: Corpus, tokenizer_file: Path, tmp_path: Path
) -> None:
    def build_within(phase: str, done: int, total: int, unit: str) -> None:
        with pytest.raises(PreflightError, match=r"another process is building .*/tokens; wait"):
            build(corpus, tokenizer_file, tmp_path / "tokens")

    build(corpus, tokenizer_file, tmp_path / "tokens", progress=build_within)
    assert stored_ids(tmp_path / "tokens" / "valid") == tokenizer().encode_bytes(VALID)
