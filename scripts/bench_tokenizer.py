"""lmray's encoding and counting beside other libraries, in one run, taking turns.

.venv/bin/pip install '.[bench]'
.venv/bin/python scripts/bench_tokenizer.py FOLDER [--rounds 5]

FOLDER holds GPT-2's gpt2_vocab.json and gpt2_merges.txt, and texts. Each round runs every
contestant once, so that what else the machine does falls on all of them; medians are compared.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lmray.tokenizer import END_OF_TEXT, GPT2_PATTERN, Pretokenizer, Tokenizer, native
from lmray.tokenizer.counting import PretokenCounter, count_by_regex

TEXTS = ["tinystories-train", "tinystories-valid", "webtext-train", "webtext-valid"]

Contestants = dict[str, Callable[[], Any]]


def encoders(folder: Path, path: Path) -> Contestants:
    """Ways from a text in memory, or a file for `encode_files`, to its ids."""
    ours = gpt2(folder)
    data, text = path.read_bytes(), path.read_bytes().decode()
    pieces = ours._piece_ids
    fresh = iter([pieces.encoder(GPT2_PATTERN, "uint16") for _ in range(100)])
    found: Contestants = {
        "lmray": lambda: ours.encode_to_numpy(data),
        "lmray, first text": lambda: next(fresh).encode(data),
        "lmray, pure Python": lambda: np.array(ours._encode(text), dtype=np.uint16),
    }
    ranks = {token: number for number, token in ours.vocab.items() if number != ours.end_of_text}
    for name, add in {"tiktoken": tiktoken, "riptoken": riptoken, "tokenizers": hugging}.items():
        try:
            add(found, folder, ranks, ours.special_ids, path)
        except ImportError:
            print(f"{name} is not installed and left out")
    return found


def tiktoken(found: Contestants, _folder: Path, ranks: Any, special: Any, path: Path) -> None:
    encoding = import_module("tiktoken").Encoding(
        "gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=special
    )
    text = path.read_bytes().decode()
    found["tiktoken"] = lambda: encoding.encode(text, allowed_special="all")
    found["tiktoken, to numpy"] = lambda: encoding.encode_to_numpy(text, allowed_special="all")


def riptoken(found: Contestants, _folder: Path, ranks: Any, special: Any, path: Path) -> None:
    core = import_module("riptoken").CoreBPE(ranks, special, GPT2_PATTERN)
    text = path.read_bytes().decode()
    found["riptoken"] = lambda: core.encode(text, {END_OF_TEXT})


def hugging(found: Contestants, folder: Path, _ranks: Any, _special: Any, path: Path) -> None:
    tokenizers = import_module("tokenizers")
    model = tokenizers.models.BPE.from_file(
        str(folder / "gpt2_vocab.json"), str(folder / "gpt2_merges.txt")
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([END_OF_TEXT])
    text = path.read_bytes().decode()
    documents = text.split(END_OF_TEXT)
    found["tokenizers, documents, all cores"] = lambda: tokenizer.encode_batch_fast(documents)
    gigatok = import_module("gigatok")
    fast = gigatok.Tokenizer(tokenizer)
    source = gigatok.TextFileSource([str(path)], separator=END_OF_TEXT.encode())
    found["gigatok"] = lambda: fast.encode(text)
    found["gigatok, file, all cores"] = lambda: fast.encode_files(source)


def counters(path: Path) -> Contestants:
    """Ways from a text in memory to its pre-tokens and their counts."""
    data = path.read_bytes()
    pretokenizer = Pretokenizer(GPT2_PATTERN, [END_OF_TEXT])

    def arrays() -> PretokenCounter:
        counter = PretokenCounter(GPT2_PATTERN, [END_OF_TEXT])
        counter.add(data)
        return counter

    return {
        "lmray": lambda: arrays().total(),
        "lmray, kept in arrays": arrays,
        "regex": lambda: count_by_regex(data, pretokenizer),
    }


def gpt2(folder: Path) -> Tokenizer:
    return Tokenizer.from_files(
        folder / "gpt2_vocab.json", folder / "gpt2_merges.txt", [END_OF_TEXT]
    )


def race(contestants: Contestants, size: int, rounds: int) -> None:
    """Prints each contestant's median MB/s, and how many times as fast lmray is."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            begun = time.perf_counter()
            run()
            if turn:  # the first only warms up
                seconds[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    for name, median in medians.items():
        ratio = median / medians["lmray"]
        print(
            f"    {name:34} {size / median / 1e6:8.1f} MB/s   lmray is {ratio:6.2f} times as fast"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    begun = time.perf_counter()
    native.kernels()
    print(f"kernels loaded in {time.perf_counter() - begun:.2f} s")
    for name in TEXTS:
        path = arguments.folder / f"{name}.txt"
        size = path.stat().st_size
        print(f"{name}, {size:,} bytes\n  encode, GPT-2's vocabulary")
        race(encoders(arguments.folder, path), size, arguments.rounds)
        print("  count pre-tokens")
        race(counters(path), size, arguments.rounds)


if __name__ == "__main__":
    main()
