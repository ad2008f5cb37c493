"""Byte-level BPE: pre-tokenization, learning merges, encoding and decoding, file formats."""

from lmray.tokenizer.counting import count_pretokens
from lmray.tokenizer.files import load as load_tokenizer
from lmray.tokenizer.files import save as save_tokenizer
from lmray.tokenizer.pattern import (
    END_OF_TEXT,
    GPT2_PATTERN,
    GPT4_PATTERN,
    NANOCHAT_PATTERN,
    Pretokenizer,
)
from lmray.tokenizer.tokenizer import Tokenizer
from lmray.tokenizer.training import learn_merges, train_bpe, vocabulary

__all__ = [
    "END_OF_TEXT",
    "GPT2_PATTERN",
    "GPT4_PATTERN",
    "NANOCHAT_PATTERN",
    "Pretokenizer",
    "Tokenizer",
    "count_pretokens",
    "learn_merges",
    "load_tokenizer",
    "save_tokenizer",
    "train_bpe",
    "vocabulary",
]
