"""Tokenizers and tiktoken's counterpart of the published GPT-2 vocabulary."""

from pathlib import Path

import pytest
import tiktoken

from lmray.tokenizer import END_OF_TEXT, GPT2_PATTERN, Tokenizer


@pytest.fixture(scope="session")
def gpt2(data_dir: Path) -> Tokenizer:
    return Tokenizer.from_files(
        data_dir / "gpt2_vocab.json", data_dir / "gpt2_merges.txt", [END_OF_TEXT]
    )


@pytest.fixture(scope="session")
def gpt2_tiktoken(gpt2: Tokenizer) -> tiktoken.Encoding:
    end = gpt2.end_of_text
    return tiktoken.Encoding(
        "gpt2-from-files",
        pat_str=GPT2_PATTERN,
        mergeable_ranks={data: token for token, data in gpt2.vocab.items() if token != end},
        special_tokens={END_OF_TEXT: end},
    )
