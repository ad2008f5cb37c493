"""The pre-tokens that a scanner finds, and those that `regex` finds."""

from collections import Counter
from itertools import pairwise

import numpy as np

from lmray.native import load
from lmray.tokenizer import Pretokenizer, native
from lmray.tokenizer.classes import character_classes
from lmray.tokenizer.counting import RegexCounter
from lmray.tokenizer.text import to_bytes, to_text


def scanned(pattern: str, data: bytes) -> list[bytes]:
    """Those of the scanner; it takes 64 bytes at once where there are as many."""
    ends = np.empty(len(data), dtype=np.int64)
    text = np.frombuffer(data, dtype=np.uint8)
    rules = native.rules(pattern)
    kernel = load("tests.tokenizer.scan_kernel", native.KERNELS)
    found = kernel.scan(text, character_classes(), rules, ends)
    return [data[start:end] for start, end in pairwise([0, *ends[:found].tolist()])]


def cut(pattern: str, data: bytes) -> list[bytes]:
    """Those of `regex`."""
    return [to_bytes(piece) for piece in Pretokenizer(pattern, []).cut(to_text(data))]


def counted_by_regex(data: bytes, pretokenizer: Pretokenizer) -> Counter[bytes]:
    """What the counting kernels are held against."""
    counter = RegexCounter(pretokenizer)
    counter.add(data)
    return counter.counts().as_counter()
