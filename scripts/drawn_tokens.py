"""A token dataset that is drawn, for measurements of training that need no text."""

from pathlib import Path

import numpy as np

from lmray.corpus import Corpus
from lmray.dataset import Splits, open_splits
from lmray.dataset.importing import import_tokens
from lmray.tokenizer import END_OF_TEXT, Tokenizer, save_tokenizer

TOKENS = {"train": 1 << 20, "valid": 1 << 16}


def drawn_tokens(vocab_size: int, folder: Path) -> Splits:
    """Half a million pairs of tokens, the same every time.

    A pair's first token is frequent or rare as words are; three seconds in four follow from it, so
    that there is something to learn. Made in `folder`, for a vocabulary of 257 to 65,793 ids.
    """
    folder.mkdir(parents=True, exist_ok=True)
    merges = [(bytes([n >> 8]), bytes([n & 255])) for n in range(vocab_size - 257)]
    words = [bytes([byte]) for byte in range(256)] + [a + b for a, b in merges]
    tokenizer = Tokenizer(dict(enumerate(words)), merges, [END_OF_TEXT])
    save_tokenizer(tokenizer, folder / "tokenizer.json", corpus_digest="")
    draw = np.random.default_rng(0)
    chances = 1 / (10 + np.arange(vocab_size))
    ids = draw.choice(vocab_size, sum(TOKENS.values()), p=chances / chances.sum())
    follows = draw.random(len(ids) // 2) < 0.75
    ids[1::2][follows] = draw.permutation(vocab_size)[ids[::2][follows]]
    files = {split: folder / f"{split}.npy" for split in TOKENS}
    for path, part in zip(files.values(), np.split(ids, [TOKENS["train"]]), strict=True):
        np.save(path, part.astype(tokenizer.id_dtype))
    corpus = Corpus("drawn", (files["train"],), (files["valid"],))
    import_tokens(corpus, folder / "tokenizer.json", folder / "tokens")
    return open_splits(folder / "tokens")
