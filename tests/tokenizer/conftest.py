"""Tokenizers of the published GPT-2 vocabulary, and tiktoken's counterparts."""

from pathlib import Path

import pytest
import tiktoken

from lmray.tokenizer import END_OF_TEXT, GPT4_PATTERN, Tokenizer


def in_tiktoken(tokenizer: Tokenizer) -> tiktoken.Encoding:
    """tiktoken's with the same ranks, pattern and special tokens."""
    special = tokenizer.special_ids
    return tiktoken.Encoding(
        "the-same",
        pat_str=tokenizer.pattern,
        mergeable_ranks={
            data: token for token, data in tokenizer.vocab.items() if token not in special.values()
        },
        special_tokens=special,
    )


@pytest.fixture(scope="session")
def gpt2(data_dir: Path) -> Tokenizer:
    return Tokenizer.from_files(
        data_dir / "gpt2_vocab.json", data_dir / "gpt2_merges.txt", [END_OF_TEXT]
    )


@pytest.fixture(scope="session")
def gpt2_tiktoken(gpt2: Tokenizer) -> tiktoken.Encoding:
    return in_tiktoken(gpt2)


@pytest.fixture(scope="session")
def gpt4(gpt2: Tokenizer) -> Tokenizer:
    """GPT-2's vocabulary, GPT-4's pattern."""
    return Tokenizer(gpt2.vocab, gpt2.merges, gpt2.special_tokens, pattern=GPT4_PATTERN)


@pytest.fixture(scope="session")
def gpt4_tiktoken(gpt4: Tokenizer) -> tiktoken.Encoding:
    return in_tiktoken(gpt4)
