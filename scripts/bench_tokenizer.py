"""lmray's encoding, counting and training beside other libraries, in one run, taking turns.

.venv/bin/pip install '.[bench]'
.venv/bin/python scripts/bench_tokenizer.py FOLDER [--rounds 5] [--only train]

FOLDER holds GPT-2's gpt2_vocab.json and gpt2_merges.txt, and texts. Each round runs every
contestant once, so that what else the machine does falls on all of them; medians are compared.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lmray.tokenizer import (
    END_OF_TEXT,
    GPT2_PATTERN,
    PretokenCounts,
    Pretokenizer,
    Tokenizer,
    count_pretokens,
    learn_merges,
    native,
)
from lmray.tokenizer.counting import PretokenCounter, count_by_regex
from lmray.tokenizer.gpt2_files import byte_characters
from lmray.tokenizer.learning import TieBreak

TEXTS = ["tinystories-train", "tinystories-valid", "webtext-train", "webtext-valid"]
TRAINED = {"tinystories-train": [10_000], "webtext-train": [10_000, 32_000]}
"""Texts to learn from, and the sizes of vocabulary that they are large enough for."""

SECTIONS = ["encode", "count", "train"]

Contestants = dict[str, Callable[[], Any]]


def encoders(folder: Path, path: Path) -> Contestants:
    """Ways from a text in memory, or a file for `encode_files`, to its ids."""
    ours = gpt2(folder)
    data, text = path.read_bytes(), path.read_bytes().decode()
    pieces = ours._piece_ids
    fresh = iter([pieces.encoder("uint16") for _ in range(100)])
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
        counter = PretokenCounter([END_OF_TEXT])
        counter.add(data)
        return counter

    return {
        "lmray": lambda: arrays().total(),
        "lmray, kept in arrays": arrays,
        "regex": lambda: count_by_regex(data, pretokenizer),
    }


def trainers(path: Path, vocab_size: int) -> dict[str, Callable[[], list[bytes]]]:
    """Ways from a file to a vocabulary: the tokens that merges make, in order."""

    def ours(tie_break: TieBreak) -> list[bytes]:
        counts = count_pretokens(
            path.read_bytes(), pattern=GPT2_PATTERN, special_tokens=[END_OF_TEXT]
        )
        merges = learn_merges(
            PretokenCounts.of(counts),
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            tie_break=tie_break,
        )
        return [left + right for left, right in merges]

    def gigatok() -> list[bytes]:
        with quiet():
            _vocab, merges = import_module("gigatok").train_bpe(path, vocab_size, [END_OF_TEXT])
        return [left + right for left, right in merges]

    def rustbpe() -> list[bytes]:
        tokenizer = import_module("rustbpe").Tokenizer()
        documents = path.read_bytes().decode().split(END_OF_TEXT)
        tokenizer.train_from_iterator(iter(documents), vocab_size - 1, pattern=GPT2_PATTERN)
        ranks = tokenizer.get_mergeable_ranks()
        return [token for token, _rank in sorted(ranks, key=lambda each: each[1])[256:]]

    def tokenizers() -> list[bytes]:
        library = import_module("tokenizers")
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        documents = path.read_bytes().decode().split(END_OF_TEXT)
        tokenizer.train_from_iterator(documents, trainer)
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        byte = {character: byte for byte, character in byte_characters().items()}
        return [bytes(byte[character] for character in left + right) for left, right in merges]

    found: dict[str, Callable[[], list[bytes]]] = {
        "lmray": lambda: ours("bytes"),
        "lmray, huggingface's ties": lambda: ours("huggingface"),
    }
    for run in (gigatok, rustbpe, tokenizers):
        try:
            import_module(run.__name__)
            found[run.__name__] = run
        except ImportError:
            print(f"{run.__name__} is not installed and left out")
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Drops what a library prints past Python."""
    kept = os.dup(1), os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            for number, descriptor in enumerate(kept, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)


def gpt2(folder: Path) -> Tokenizer:
    return Tokenizer.from_files(
        folder / "gpt2_vocab.json", folder / "gpt2_merges.txt", [END_OF_TEXT]
    )


def medians(contestants: Contestants, rounds: int) -> dict[str, float]:
    """Each contestant's median seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            begun = time.perf_counter()
            run()
            if turn:  # the first only warms up
                seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(each) for name, each in seconds.items()}


def race(contestants: Contestants, size: int, rounds: int) -> None:
    """Prints each contestant's median MB/s, and how many times as fast lmray is."""
    found = medians(contestants, rounds)
    for name, median in found.items():
        ratio = median / found["lmray"]
        print(
            f"    {name:34} {size / median / 1e6:8.1f} MB/s   lmray is {ratio:6.2f} times as fast"
        )


def race_trainers(path: Path, vocab_size: int, rounds: int) -> None:
    """Prints each trainer's median seconds, and to whose vocabulary of ours its own is equal."""
    contestants = trainers(path, vocab_size)
    learnt = {name: run() for name, run in contestants.items()}
    for name, median in (found := medians(contestants, rounds)).items():
        ratio = median / found["lmray"]
        equal = [
            other
            for other in learnt
            if other.startswith("lmray") and other != name and learnt[other] == learnt[name]
        ]
        print(
            f"    {name:34} {median:8.3f} s      lmray is {ratio:6.2f} times as fast"
            + "".join(f"; the same tokens as {other}" for other in equal)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=SECTIONS)
    arguments = parser.parse_args()
    begun = time.perf_counter()
    native.kernels()
    print(f"kernels loaded in {time.perf_counter() - begun:.2f} s")
    for name in TEXTS:
        path = arguments.folder / f"{name}.txt"
        size = path.stat().st_size
        print(f"{name}, {size:,} bytes")
        if "encode" in arguments.only:
            print("  encode, GPT-2's vocabulary")
            race(encoders(arguments.folder, path), size, arguments.rounds)
        if "count" in arguments.only:
            print("  count pre-tokens")
            race(counters(path), size, arguments.rounds)
        for vocab_size in TRAINED.get(name, []) if "train" in arguments.only else []:
            print(f"  train, {vocab_size:,} ids")
            race_trainers(path, vocab_size, arguments.rounds)


if __name__ == "__main__":
    main()
