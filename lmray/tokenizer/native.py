"""When the kernels are loaded: lazily, and which patterns have some."""

import sys
from pathlib import Path
from types import ModuleType

from lmray.native import load
from lmray.tokenizer.pattern import GPT2_PATTERN, GPT4_PATTERN, NANOCHAT_PATTERN

_asked_bytes = 0

WORTH_BYTES = 1 << 18
"""Text after which a process loads the kernels: as long as that takes, `regex` does as much."""

_NAME = "lmray.tokenizer.kernels"

KERNELS = Path(__file__).parent / "kernels"
"""The folder of their sources."""

_GPT2_ORIGINAL = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT2_TIKTOKEN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
_GPT4_ORIGINAL = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_RULES: dict[str, tuple[str, tuple[int | bool, ...]]] = {
    GPT2_PATTERN: ("gpt2", ()),
    _GPT2_ORIGINAL: ("gpt2", ()),
    _GPT2_TIKTOKEN: ("gpt2", ()),
    GPT4_PATTERN: ("gpt4", (3, True)),
    # As first published, and in Llama 3: "\n " at the end of a text is two pre-tokens.
    _GPT4_ORIGINAL: ("gpt4", (3, False)),
    # Qwen 2's.
    _GPT4_ORIGINAL.replace("{1,3}", ""): ("gpt4", (1, False)),
    NANOCHAT_PATTERN: ("gpt4", (2, False)),
}
"""Spellings of patterns that have kernels: the module that compiles them, and their rules."""


def worth_it(pattern: str, num_bytes: int) -> bool:
    """Whether to use kernels for `num_bytes` more of text.

    They know the pattern, and are loaded for it or this process has met enough text to do so.
    """
    return knows(pattern) and enough(num_bytes, module=_module(pattern))


def knows(pattern: str) -> bool:
    """Whether there are kernels for the pattern."""
    return pattern in _RULES


def enough(num_bytes: int, *, module: str = _NAME) -> bool:
    """Whether, with `num_bytes` more, this process has met enough text, or loaded the kernels."""
    global _asked_bytes
    _asked_bytes += num_bytes
    return _asked_bytes >= WORTH_BYTES or module in sys.modules


def kernels() -> ModuleType:
    """The module of kernels; the first process on a machine compiles them, others wait for it."""
    return load(_NAME, KERNELS)


def rules(pattern: str) -> tuple[int | bool, ...]:
    """What tells kernels which pattern it is; they are compiled for it when this returns."""
    load(_module(pattern), KERNELS)
    return _RULES[pattern][1]


def _module(pattern: str) -> str:
    """The name of the module that compiles kernels for the pattern."""
    return f"{_NAME}.{_RULES[pattern][0]}"
