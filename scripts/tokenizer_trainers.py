"""Trainers of byte-level BPE on one file, for scripts/bench_tokenizer.py."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from racing import medians, print_ratios, quiet

from lmray.corpus import byte_ranges
from lmray.corpus.sampling import DocumentSample
from lmray.progress import silent
from lmray.tokenizer import END_OF_TEXT, GPT2_PATTERN, learn_merges
from lmray.tokenizer.corpus_counts import CountRule, count_here
from lmray.tokenizer.learning import TieBreak
from lmray.tokenizer.printable import spelt

_RULE = CountRule(GPT2_PATTERN, (END_OF_TEXT,), DocumentSample(share=1.0, seed=0), memory=1 << 32)


def trainers(path: Path, vocab_size: int) -> dict[str, Callable[[], list[bytes]]]:
    """Ways from a file to the tokens that merges make, in order."""

    def ours(tie_break: TieBreak) -> list[bytes]:
        ranges = byte_ranges(path, target_bytes=1 << 20)
        counts, _ = count_here(ranges, _RULE, silent)
        merges = learn_merges(
            counts, vocab_size=vocab_size, special_tokens=[END_OF_TEXT], tie_break=tie_break
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
        return [spelt(left) + spelt(right) for left, right in merges]

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


def race_trainers(path: Path, vocab_size: int, rounds: int) -> None:
    """Prints each trainer's median seconds, and to whose tokens of ours its own are equal."""
    contestants = trainers(path, vocab_size)
    learnt = {name: run() for name, run in contestants.items()}
    print_ratios(medians(contestants, rounds), lambda seconds: f"{seconds:.3f} s")
    for name, tokens in learnt.items():
        for other in [other for other in learnt if other.startswith("lmray") and other < name]:
            if learnt[other] == tokens:
                print(f"    {name} learns the same tokens as {other}")
