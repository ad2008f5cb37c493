"""A small corpus, dataset and run that tests of several rooms use, of seconds on one core."""

import random
from pathlib import Path
from typing import Any

from lmray.config import Budget, Data, Evaluation, Execution, Model, Optim, Run
from lmray.corpus import Corpus
from lmray.dataset import build, open_splits
from lmray.tokenizer import Tokenizer, save_tokenizer, train_bpe
from lmray.training.loop import train

END = "<|endoftext|>"
VOCAB_SIZE = 300
_NAMES = ("Ada", "Ben", "Cleo", "Dan")
_VERBS = ("sees", "likes", "finds", "draws")
_THINGS = ("a red ball", "the old tree", "one small fish", "two blue birds")


def text(documents: int, seed: int) -> str:
    """Documents of a few sentences in a tiny grammar, each followed by the separator."""
    draw = random.Random(seed)

    def sentence() -> str:
        return f"{draw.choice(_NAMES)} {draw.choice(_VERBS)} {draw.choice(_THINGS)}."

    return "".join(
        " ".join(sentence() for _ in range(draw.randint(3, 9))) + f"\n{END}\n"
        for _ in range(documents)
    )


def write_corpus(folder: Path) -> Corpus:
    """Writes train.txt and valid.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    train, valid = folder / "train.txt", folder / "valid.txt"
    train.write_text(text(400, seed=1))
    valid.write_text(text(40, seed=2))
    return Corpus("small", (train,), (valid,))


def write_tokenizer(corpus: Corpus, path: Path) -> Path:
    """Trains a tokenizer of VOCAB_SIZE ids on the corpus."""
    vocab, merges = train_bpe(corpus.train[0], VOCAB_SIZE, [END])
    save_tokenizer(Tokenizer(vocab, merges, [END]), path, corpus_digest=corpus.digest())
    return path


def write_dataset(folder: Path) -> Path:
    """Makes everything beneath `folder`; returns the token dataset's directory."""
    corpus = write_corpus(folder)
    tokenizer = write_tokenizer(corpus, folder / "tokenizer" / "small" / "tokenizer.json")
    directory = folder / "tokens" / "small"
    build(corpus, tokenizer, directory, shard_bytes=20_000)
    return directory


def small_run(tokens: Path, **changes: object) -> Run:
    """Twenty steps of a model of some ten thousand parameters; `changes` replace whole sections."""
    sections = {
        "model": Model(
            vocab_size=VOCAB_SIZE, context_length=16, num_layers=1, d_model=16, num_heads=2
        ),
        "data": Data(tokens=str(tokens), batch_size=4),
        "optim": Optim(lr=1e-2),
        "budget": Budget(tokens=20 * 64),
        "evaluation": Evaluation(interval_tokens=5 * 64, prefix_tokens=256),
        "execution": Execution(
            device="cpu", threads=1, checkpoint_interval_steps=4, log_interval_steps=1
        ),
    }
    return Run.model_validate({**sections, **changes})


def trained(run: Run, directory: Path, *, stop_after: int = 0) -> list[dict[str, Any]]:
    """The records of a training in `directory`, interrupted after so many steps."""
    records: list[dict[str, Any]] = []
    train(
        run,
        open_splits(run.data.tokens),
        directory,
        identity={},
        report=records.append,
        interrupted=lambda: bool(stop_after) and records[-1]["step"] >= stop_after,
    )
    return records
