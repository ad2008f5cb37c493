"""Encoding with several threads: the parts of a long text or file, or groups of short texts.

Kernels release the interpreter's lock. Without them threads would only take turns, so there is one.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from lmray.corpus.documents import file_size
from lmray.corpus.ranges import ByteRange
from lmray.threads import Threads, ordered_map, resolve
from lmray.tokenizer.parts import Read, gather, parts
from lmray.tokenizer.special_policy import refuse
from lmray.tokenizer.text_encoder import TextEncoder

LEAST_PART, MOST_PART = 1 << 20, 1 << 23
"""Bytes that a thread encodes at once: from a few milliseconds of work on."""

GROUP_CHARACTERS = 1 << 17
"""Of short texts, what a thread encodes at once: about a millisecond of work."""


def encode_data(
    encoder: TextEncoder, data: bytes, special_tokens: Sequence[str], num_threads: Threads
) -> np.ndarray:
    """The ids of one text."""
    number = resolve(num_threads)
    if number == 1 or encoder.native(len(data)) is None:
        return encoder.encode_to_numpy(data)
    return _encode_parts(
        encoder, lambda start, end: data[start:end], len(data), special_tokens, (), number
    )


def encode_file(
    encoder: TextEncoder,
    path: Path | str,
    special_tokens: Sequence[str],
    disallowed: Collection[str],
    num_threads: Threads,
) -> np.ndarray:
    """The ids of the bytes of a file; UsageError if it cannot be read or holds `disallowed`."""
    number, size = resolve(num_threads), file_size(Path(path))

    def read(start: int, end: int) -> bytes:
        return ByteRange(str(path), start, min(end, size)).read()

    if encoder.native(size) is None:
        data = read(0, size)
        refuse(data, disallowed)
        return encoder.encode_to_numpy(data)
    return _encode_parts(encoder, read, size, special_tokens, disallowed, number)


def encode_texts(
    encoder: TextEncoder, texts: Sequence[str], num_threads: Threads
) -> list[np.ndarray]:
    """The ids of each text."""
    number = resolve(num_threads)
    if encoder.native(sum(map(len, texts))) is None:
        number = 1
    encoded = ordered_map(encoder.encode_texts, _groups(texts), num_threads=number)
    return list(chain.from_iterable(encoded))


def _encode_parts(
    encoder: TextEncoder,
    read: Read,
    size: int,
    special_tokens: Sequence[str],
    disallowed: Collection[str],
    num_threads: int,
) -> np.ndarray:
    def encode(part: tuple[int, int]) -> tuple[int, np.ndarray]:
        start, end = part
        data = read(start, end)
        # No part cuts a special token, so that one stands in the text if it does in a part.
        refuse(data, disallowed, start=start)
        return end, encoder.encode_to_numpy(data)

    # As few parts as there are threads, unless that takes much memory: each has fixed costs.
    share = -(-size // num_threads)
    part_bytes = min(max(share, LEAST_PART), MOST_PART)
    cut = parts(read, size, special_tokens, part_bytes=part_bytes)
    encoded = ordered_map(encode, cut, num_threads=num_threads)
    return gather(encoded, size, encoder.dtype)


def _groups(texts: Iterable[str]) -> Iterator[list[str]]:
    group: list[str] = []
    characters = 0
    for text in texts:
        group.append(text)
        characters += len(text)
        if characters >= GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group
