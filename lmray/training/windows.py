"""Which windows of a split are evaluated: each target once, with a stated least context."""

from dataclasses import dataclass
from typing import Literal

from lmray.errors import PreflightError, UsageError


@dataclass(frozen=True)
class Windows:
    """Neighbouring windows of one length that are scored together.

    Together they score the targets at positions [first_target, stop), each of them once.
    """

    start: int
    """Position of the first window's first input."""
    count: int
    length: int
    """Inputs in each; the target of the input at position p is the token at p + 1."""
    stride: int
    """Inputs from one window's start to the next one's."""
    skipped: int
    """First targets of each window that the one before it has scored."""

    @property
    def first_target(self) -> int:
        """Position of the first target they score."""
        return self.start + self.skipped + 1

    @property
    def stop(self) -> int:
        """Position after their last target."""
        return self.start + (self.count - 1) * self.stride + self.length + 1


def plan(
    num_tokens: int,
    *,
    context_length: int,
    stride: int,
    batch_size: int,
    max_tokens: int | Literal["all"],
) -> list[Windows]:
    """The batches of windows that score a split of `num_tokens`, in order.

    Windows start at multiples of `stride` and score what the one before has not: all targets of the
    first, the last `stride` of each other. So each target but those of the first window has a
    context of at least context_length - stride + 1 tokens; a stride of the context length makes the
    windows disjoint. "all" ends with a shorter window where need be; a number ends with the last
    full window of floor(max_tokens / context_length) disjoint ones, or of the split.

    Raises UsageError for an impossible stride and if max_tokens is less than a window,
    PreflightError if the split is.
    """
    if not 1 <= stride <= context_length:
        raise UsageError(
            f"stride={stride} is not from 1 to context_length={context_length}, so tokens would "
            f"be left out; choose one of these, the context length itself for disjoint windows"
        )
    end = _end(num_tokens, context_length, max_tokens)
    overlap = context_length - stride
    # Only the first window scores its first targets: where windows overlap it stands alone.
    batches = [Windows(0, 1, context_length, stride, 0)] if overlap else []
    full = (end - context_length) // stride + 1
    place = len(batches)
    while place < full:
        count = min(batch_size, full - place)
        batches.append(Windows(place * stride, count, context_length, stride, overlap))
        place += count
    if batches[-1].stop <= end:
        start = full * stride
        batches.append(Windows(start, 1, end - start, stride, overlap))
    return batches


def _end(num_tokens: int, context_length: int, max_tokens: int | Literal["all"]) -> int:
    """Targets to score: the first so many after the first token."""
    num_targets = num_tokens - 1
    if num_targets < context_length:
        raise PreflightError(
            f"the split has {num_tokens} tokens and one window of context_length={context_length} "
            f"needs {context_length + 1}; use more text or a shorter context"
        )
    if max_tokens == "all":
        return num_targets
    if max_tokens < context_length:
        raise UsageError(
            f"max_tokens={max_tokens} is less than one window of context_length={context_length}; "
            f"raise it to at least that"
        )
    return min(num_targets, max_tokens) // context_length * context_length
