"""What a tokenizer must be for a corpus to be encoded with it, asked before a long run is begun."""

from collections.abc import Sequence

from lmray.corpus import ByteRange
from lmray.errors import PreflightError
from lmray.tokenizer import Tokenizer

LEAST_BYTES_PER_TOKEN = 1.05
"""Below it tokens are bytes, but for a few; twenty merges learnt from a text give it 1.2."""

_FEW_MERGES = 20
_SAMPLES, _SAMPLE_BYTES, _LEAST_BYTES = 16, 1 << 16, 1 << 12


def check_merges(tokenizer: Tokenizer, ranges: Sequence[ByteRange], split: str) -> None:
    """Raises PreflightError if the merges do not merge a megabyte of the text, from all over it.

    A model of such tokens learns bytes and its loss looks excellent (0.5034 nats in one public
    write-up). A tokenizer without merges, or with very few, is one of bytes by intent, and a text
    of less than 4 KiB is no evidence.
    """
    if len(tokenizer.merges) < _FEW_MERGES:
        return
    chosen = ranges[:: max(1, len(ranges) // _SAMPLES)]
    samples = [
        ByteRange(part.path, part.start, min(part.end, part.start + _SAMPLE_BYTES)).read()
        for part in chosen
    ]
    num_bytes = sum(map(len, samples))
    # Special tokens, of many bytes each, would hide what becomes of the text between them.
    num_tokens = sum(len(tokenizer.encode_to_numpy(text, allowed_special=())) for text in samples)
    if num_bytes >= _LEAST_BYTES and num_bytes < LEAST_BYTES_PER_TOKEN * num_tokens:
        raise PreflightError(
            f"the {split} split gets {num_bytes / num_tokens:.3f} bytes/token (a sample of "
            f"{num_bytes:,} bytes), so nearly every token is one byte though the tokenizer has "
            f"{len(tokenizer.merges):,} merges: they were read wrongly, or learnt from quite other "
            f"text; try `lmray tokenizer report` on it, or train one on this text"
        )
