"""Training a tokenizer and encoding at growing sizes: time, and memory of all processes.

.venv/bin/pip install '.[bench]'
.venv/bin/python scripts/bench_scale.py TEXT [--sizes 20 200 2000] [--work DIR] [--rounds 1]

TEXT is a file of documents. It is repeated to each size in MB; in every repetition a twentieth of
the documents gets other letters, so that the number of distinct words goes on growing as it does
in a real corpus. Each of three ways does all of it: threads of one process, two processes, Ray
Data with two CPUs. Memory is what all processes of one way have together (PSS: shared pages once).
"""

import argparse
import json
import multiprocessing
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from lmray import dataset
from lmray.corpus import SEPARATOR, ByteRange, Corpus, byte_ranges
from lmray.corpus.sampling import DocumentSample
from lmray.machine import peak_memory
from lmray.progress import Progress, silent
from lmray.tokenizer import END_OF_TEXT, GPT2_PATTERN, PretokenCounts, native
from lmray.tokenizer.build import Recipe, build
from lmray.tokenizer.corpus_counts import CountRule, Effort, count_here, count_range
from lmray.tokenizer.counting import merge_counts, pretoken_counter

WAYS = ["threads", "processes", "ray"]
LETTERS = b"abcdefghijklmnopqrstuvwxyz"


def write_corpus(source: Path, path: Path, size: int) -> None:
    """Repeats the documents of `source` up to about `size` bytes."""
    documents = source.read_bytes().split(SEPARATOR)[:-1]
    draw, written = random.Random(0), 0
    with path.open("wb") as file:
        while written < size:
            letters = list(LETTERS)
            draw.shuffle(letters)
            other = bytes.maketrans(LETTERS, bytes(letters))
            for document in documents:
                if written >= size:
                    break
                varied = document.translate(other) if draw.random() < 0.05 else document
                written += file.write(varied + SEPARATOR)


def count_one(rule: CountRule, part: ByteRange) -> tuple[PretokenCounts, Effort]:
    counter = pretoken_counter(
        rule.pattern, rule.special_tokens, num_bytes=part.size, memory=rule.memory
    )
    effort = count_range(counter, part, rule.sample)
    return counter.counts(), replace(effort, worker_peak_bytes=peak_memory())


def count_in(pool: Any) -> Any:
    """The plain two-process way that Ray Data is compared with."""

    def count(
        ranges: Sequence[ByteRange], rule: CountRule, progress: Progress
    ) -> tuple[PretokenCounts, Effort]:
        total = Effort()

        def arriving() -> Iterator[PretokenCounts]:
            nonlocal total
            for counts, effort in pool.imap_unordered(partial(count_one, rule), ranges):
                total += effort
                yield counts

        return merge_counts(arriving()), total

    return count


def carry_out(way: str, text: Path, directory: Path, vocab_size: int) -> dict[str, float]:
    """Trains and encodes in one of the ways; seconds of each part."""
    begun = time.perf_counter()
    session: Any = nullcontext()
    if way == "processes":
        session = multiprocessing.get_context("spawn").Pool(2)
    elif way == "ray":
        from lmray.distributed.cluster import ray_session

        session = ray_session()
    with session as pool:
        count_ranges, run_tasks = count_here, dataset.run_here
        if way == "processes":
            count_ranges = count_in(pool)
            run_tasks = partial(pool.imap_unordered, dataset.make_shard)
            pool.map(warm, range(2))
        elif way == "ray":
            from lmray.distributed import data

            count_ranges, run_tasks = data.count_ranges(2), data.run_tasks(2)
            # The first pipeline of a session starts its workers and all that they import.
            ranges = byte_ranges(text.with_name("valid.txt"), target_bytes=1 << 18)
            sample = DocumentSample(share=1.0, seed=0)
            count_ranges(ranges, CountRule(GPT2_PATTERN, (END_OF_TEXT,), sample, 1 << 30), silent)
        native.kernels()
        started = time.perf_counter()
        corpus = Corpus("scale", (text,), (text.with_name("valid.txt"),))
        recipe = Recipe(vocab_size)
        facts = build(
            corpus, directory / "t", recipe, kept_counts=directory, count_ranges=count_ranges
        )
        trained = time.perf_counter()
        dataset.build(
            corpus,
            directory / "t" / "tokenizer.json",
            directory / "tokens",
            shard_bytes=32 << 20,
            run_tasks=run_tasks,
        )
        encoded = time.perf_counter()
    return {
        "start": started - begun,
        "count": facts["seconds"]["counting"],
        "merge": facts["seconds"]["merging"],
        "train": trained - started,
        "encode": encoded - trained,
        "distinct": facts["distinct_pretokens"],
    }


def warm(_: int) -> None:
    native.kernels()


def watched(command: list[str]) -> tuple[dict[str, float], int]:
    """The result of a command, and the most memory that it and its descendants had together."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    psutil: Any = import_module("psutil")
    peak, over = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        root = psutil.Process(process.pid)
        while not over.wait(0.25):
            together = 0
            with suppress(psutil.NoSuchProcess):
                for one in [root, *root.children(recursive=True)]:
                    with suppress(psutil.NoSuchProcess):
                        together += one.memory_full_info().pss
            peak = max(peak, together)

    watcher = threading.Thread(target=watch)
    watcher.start()
    printed, _ = process.communicate()
    over.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return json.loads(printed.splitlines()[-1]), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 200, 2000], metavar="MB")
    parser.add_argument("--vocab-size", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("lmray-out/bench-scale"))
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        found = carry_out(given.one, given.text, given.work, given.vocab_size)
        print(json.dumps(found))
        return
    header = "MB", "way", "distinct", "start", "count", "merge", "encode", "encode MB/s", "memory"
    print(" | ".join(header), flush=True)
    for size in given.sizes:
        folder = given.work / f"{size}"
        folder.mkdir(parents=True, exist_ok=True)
        text = folder / "train.txt"
        write_corpus(given.text, text, size * 1_000_000)
        write_corpus(given.text, folder / "valid.txt", 1_000_000)
        for _ in range(given.rounds):
            for way in WAYS:
                out = folder / way
                command = [sys.executable, __file__, str(text), "--one", way, "--work", str(out)]
                found, peak = watched([*command, "--vocab-size", str(given.vocab_size)])
                shutil.rmtree(out)
                seconds = [f"{found[part]:.1f} s" for part in ("start", "count", "merge", "encode")]
                speed = text.stat().st_size / found["encode"] / 1e6
                row = [f"{size:,}", way, f"{found['distinct']:,.0f}", *seconds, f"{speed:.0f}"]
                print(" | ".join([*row, f"{peak / 1e9:.2f} GB"]), flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
