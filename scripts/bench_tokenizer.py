"""lmray's training and encoding beside other libraries, in one run, taking turns.

.venv/bin/pip install '.[bench]'
.venv/bin/python scripts/bench_tokenizer.py FOLDER [--rounds 5] [--threads 2] [--only train]

FOLDER holds GPT-2's gpt2_vocab.json and gpt2_merges.txt, tinystories-train.txt and
webtext-train.txt. Encoding is timed with GPT-2's vocabulary and with one learnt from the text: in
memory, and from a file to one uint16 array, ids compared. Each round runs every
contestant once, so that what else the machine does falls on all of them; medians are compared.
"""

import argparse
import os
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from racing import Contestants, medians, print_ratios
from tokenizer_trainers import race_trainers

from lmray.tokenizer import (
    END_OF_TEXT,
    GPT2_PATTERN,
    Pretokenizer,
    Tokenizer,
    gpt2_files,
    native,
    train_bpe,
)
from lmray.tokenizer.counting import NativeCounter, RegexCounter

CORPORA = {"tinystories-train": 10_000, "webtext-train": 32_000}
"""Texts, and the vocabulary that is learnt from each."""

SECTIONS = ["train", "encode", "count"]

Peers = dict[str, Any]


def one_text(ours: Tokenizer, peers: Peers, path: Path, rounds: int) -> Contestants:
    """Ways from a text in memory to its ids; gigatok's uses all threads, the others' one."""
    data, text = path.read_bytes(), path.read_bytes().decode()
    encoder = ours._encoder
    fresh = iter([encoder.piece_ids.encoder(GPT2_PATTERN, "uint16") for _ in range(rounds + 1)])
    found: dict[str, Callable[[], Any]] = {
        "lmray": lambda: ours.encode_to_numpy(data),
        "lmray, first text": lambda: next(fresh).encode(data),
        "lmray, pure Python": lambda: np.array(encoder.encode_by_regex(text), dtype=np.uint16),
    }
    if "tiktoken" in peers:
        fast = peers["tiktoken"]
        found["tiktoken"] = lambda: fast.encode(text, allowed_special="all")
        found["tiktoken, to numpy"] = lambda: fast.encode_to_numpy(text, allowed_special="all")
    if "riptoken" in peers:
        found["riptoken"] = lambda: peers["riptoken"].encode(text, {END_OF_TEXT})
    if "gigatok" in peers:
        found["gigatok, all threads"] = lambda: peers["gigatok"].encode(text)
    return found


def files(ours: Tokenizer, peers: Peers, path: Path, num_threads: int) -> Contestants:
    """Ways from a file to one uint16 array in memory; their ids are compared once."""
    found: dict[str, Callable[[], Any]] = {
        "lmray": lambda: ours.encode_file(path, num_threads=num_threads)
    }
    found["lmray, one thread"] = lambda: ours.encode_file(path, num_threads=1)
    if "gigatok" in peers:
        # As one document, which it cuts at safe places itself; by documents it drops separators.
        whole = import_module("gigatok").TextFileSource([str(path)])
        to_numpy = import_module("awkward").to_numpy
        found["gigatok, encode_files"] = lambda: to_numpy(
            peers["gigatok"].encode_files(whole)[0]
        ).astype(np.uint16)
        found["gigatok, encode_files, its own arrays"] = lambda: peers["gigatok"].encode_files(
            whole
        )
    if "tokenizers" in peers:

        def documents() -> np.ndarray:
            encoded = peers["tokenizers"].encode_batch_fast(
                [part + END_OF_TEXT for part in path.read_text().split(END_OF_TEXT)]
            )
            ids = [np.array(each.ids, dtype=np.uint16) for each in encoded]
            return np.concatenate(ids)[:-1]

        found["tokenizers, by documents"] = documents
    expected = ours.encode_file(path)
    for name, run in found.items():
        if "own arrays" not in name and not np.array_equal(run(), expected):
            print(f"    {name} gives other ids")
    return found


def peers_of(ours: Tokenizer) -> Peers:
    """The same vocabulary and merges in each library that is installed."""
    ranks = {token: n for n, token in ours.vocab.items() if n != ours.end_of_text}
    makers: dict[str, Callable[[], Any]] = {
        "tiktoken": lambda: import_module("tiktoken").Encoding(
            "same", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=ours.special_ids
        ),
        "riptoken": lambda: import_module("riptoken").CoreBPE(
            ranks, ours.special_ids, GPT2_PATTERN
        ),
        "tokenizers": lambda: hugging(ours),
        "gigatok": lambda: import_module("gigatok").Tokenizer(hugging(ours)),
    }
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError:
            print(f"{name} is not installed and left out")
    return found


def hugging(ours: Tokenizer) -> Any:
    tokenizers = import_module("tokenizers")
    with TemporaryDirectory() as name:
        vocab, merges = Path(name, "vocab.json"), Path(name, "merges.txt")
        gpt2_files.write_vocab(vocab, ours.vocab, special_ids=[ours.end_of_text])
        gpt2_files.write_merges(merges, ours.merges)
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(str(vocab), str(merges)))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def counters(path: Path) -> Contestants:
    """Ways from a text in memory to its pre-tokens and their counts."""
    data = path.read_bytes()
    pretokenizer = Pretokenizer(GPT2_PATTERN, [END_OF_TEXT])

    def arrays() -> NativeCounter:
        counter = NativeCounter(GPT2_PATTERN, [END_OF_TEXT])
        counter.add(data)
        return counter

    return {
        "lmray": lambda: arrays().counts().as_counter(),
        "lmray, kept in arrays": arrays,
        "regex": lambda: RegexCounter(pretokenizer).add(data),
    }


def gpt2(folder: Path) -> Tokenizer:
    return Tokenizer.from_files(
        folder / "gpt2_vocab.json", folder / "gpt2_merges.txt", [END_OF_TEXT]
    )


def race(contestants: Contestants, size: int, rounds: int) -> None:
    """Prints each contestant's median MB/s, and how many times as fast lmray is."""
    print_ratios(medians(contestants, rounds), lambda seconds: f"{size / seconds / 1e6:.1f} MB/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=SECTIONS)
    arguments = parser.parse_args()
    # Read when the peers are imported: they start a thread for each core else.
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    begun = time.perf_counter()
    native.kernels()
    print(f"kernels loaded in {time.perf_counter() - begun:.2f} s")
    for name, vocab_size in CORPORA.items():
        path = arguments.folder / f"{name}.txt"
        size = path.stat().st_size
        print(f"{name}, {size:,} bytes")
        if "train" in arguments.only:
            print(f"  train, file to {vocab_size:,} ids")
            race_trainers(path, vocab_size, arguments.rounds)
        if "encode" in arguments.only:
            own = Tokenizer(*train_bpe(path, vocab_size, [END_OF_TEXT]), [END_OF_TEXT])
            race_encoders(own, f"{vocab_size:,} ids learnt from it", path, arguments)
            race_encoders(gpt2(arguments.folder), "GPT-2's vocabulary", path, arguments)
        if "count" in arguments.only:
            print("  count pre-tokens")
            race(counters(path), size, arguments.rounds)


def race_encoders(ours: Tokenizer, whose: str, path: Path, arguments: argparse.Namespace) -> None:
    peers, size = peers_of(ours), path.stat().st_size
    print(f"  text in memory to ids, {whose}")
    race(one_text(ours, peers, path, arguments.rounds), size, arguments.rounds)
    print(f"  file to uint16 array, {arguments.threads} threads, {whose}")
    race(files(ours, peers, path, arguments.threads), size, arguments.rounds)


if __name__ == "__main__":
    main()
