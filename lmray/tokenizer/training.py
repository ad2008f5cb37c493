"""From one text file to a vocabulary, in one call and one process."""

import sys
from collections.abc import Sequence
from pathlib import Path

from lmray.corpus.ranges import ByteRange, byte_ranges
from lmray.progress import Progress, silent
from lmray.tokenizer.counting import pretoken_counter
from lmray.tokenizer.learning import check_vocab_size, learn_merges, vocabulary
from lmray.tokenizer.pattern import END_OF_TEXT, GPT2_PATTERN
from lmray.tokenizer.separator import shares_with_separator

_CHUNK_BYTES = 1 << 22


def train_bpe(
    input_path: Path | str,
    vocab_size: int,
    special_tokens: list[str],
    *,
    pattern: str = GPT2_PATTERN,
    progress: Progress = silent,
) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]]]:
    """Learns a vocabulary and its merges from one text file, in this process.

    Ids are the 256 bytes, the merges in order, then the special tokens. Raises as `learn_merges`.
    """
    check_vocab_size(vocab_size, special_tokens)
    chunks = _chunks(input_path, special_tokens)
    size = chunks[-1].end if chunks else 0
    counter = pretoken_counter(pattern, special_tokens, num_bytes=size)
    for chunk in chunks:
        counter.add(chunk.read())
        progress("pre-tokens", chunk.end, size, "bytes")
    merges = learn_merges(
        counter.counts(), vocab_size=vocab_size, special_tokens=special_tokens, progress=progress
    )
    return vocabulary(merges, special_tokens), merges


def _chunks(path: Path | str, special_tokens: Sequence[str]) -> list[ByteRange]:
    """Parts of the file that end with a special token, or all of it where no cut is safe."""
    safe = END_OF_TEXT in special_tokens and not shares_with_separator(special_tokens)
    return byte_ranges(path, target_bytes=_CHUNK_BYTES if safe else sys.maxsize)
