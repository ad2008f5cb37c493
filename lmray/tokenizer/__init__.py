"""Byte-level BPE: pre-tokenization, learning merges, encoding and decoding, file formats."""

from lmray.tokenizer.counting import count_pretokens
from lmray.tokenizer.counts import PretokenCounts
from lmray.tokenizer.files import load as load_tokenizer
from lmray.tokenizer.files import save as save_tokenizer
from lmray.tokenizer.learning import learn_merges, vocabulary
from lmray.tokenizer.native_learner import learning_bytes
from lmray.tokenizer.pattern import (
    END_OF_TEXT,
    GPT2_PATTERN,
    GPT4_PATTERN,
    NANOCHAT_PATTERN,
    Pretokenizer,
)
from lmray.tokenizer.tokenizer import Tokenizer
from lmray.tokenizer.training import train_bpe

__all__ = [
    "END_OF_TEXT",
    "GPT2_PATTERN",
    "GPT4_PATTERN",
    "NANOCHAT_PATTERN",
    "PretokenCounts",
    "Pretokenizer",
    "Tokenizer",
    "count_pretokens",
    "learn_merges",
    "learning_bytes",
    "load_tokenizer",
    "save_tokenizer",
    "train_bpe",
    "vocabulary",
]
