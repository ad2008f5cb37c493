"""Which window scores which token, counted one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray.errors import PreflightError, UsageError
from lmray.training.windows import plan


def scored(batches):
    """(target, first position its prediction sees) of every scored target, in order."""
    return [
        (start + offset + 1, start)
        for batch in batches
        for start in range(batch.start, batch.start + batch.count * batch.stride, batch.stride)
        for offset in range(batch.skipped, batch.length)
    ]


@given(
    num_tokens=st.integers(2, 80),
    context_length=st.integers(1, 12),
    stride=st.integers(1, 12),
    batch_size=st.integers(1, 5),
)
def test_every_token_but_the_first_is_scored_once_with_the_context_that_was_promised(
    num_tokens, context_length, stride, batch_size
):
    context_length = min(context_length, num_tokens - 1)
    stride = min(stride, context_length)
    batches = plan(
        num_tokens,
        context_length=context_length,
        stride=stride,
        batch_size=batch_size,
        max_tokens="all",
    )
    found = scored(batches)
    assert [target for target, _ in found] == list(range(1, num_tokens))
    for target, begin in found:
        assert begin % stride == 0
        assert target - begin <= context_length
        assert target - begin > context_length - stride or begin == 0
    assert all(batch.count <= batch_size for batch in batches)
    for batch in batches:
        within = [t for t, _ in found if batch.first_target <= t < batch.stop]
        assert within == [target for target, _ in scored([batch])]


def test_overlapping_windows_are_those_of_hugging_face():
    """Their loop for models of fixed length: begin, end, and how many of the last are scored."""
    num_tokens, context_length, stride = 1000, 64, 24
    theirs, previous = [], 1
    # They score a window's own first token against nothing; a target's input is one before it.
    for begin in range(0, num_tokens, stride):
        end = min(begin + context_length + 1, num_tokens)
        theirs += [(target, begin) for target in range(previous, end)]
        previous = end
        if end == num_tokens:
            break
    found = plan(
        num_tokens, context_length=context_length, stride=stride, batch_size=5, max_tokens="all"
    )
    assert scored(found) == theirs


@pytest.mark.parametrize("stride", [0, 9, -1])
def test_refuses_a_stride_that_leaves_tokens_out(stride):
    with pytest.raises(UsageError, match=rf"stride={stride} is not from 1 to context_length=8"):
        plan(50, context_length=8, stride=stride, batch_size=1, max_tokens="all")


def test_refuses_what_is_shorter_than_a_window():
    with pytest.raises(PreflightError, match=r"has 8 tokens .* context_length=8 needs 9; use more"):
        plan(8, context_length=8, stride=4, batch_size=1, max_tokens="all")
    with pytest.raises(UsageError, match=r"max_tokens=7 is less than one window .*=8; raise it"):
        plan(50, context_length=8, stride=8, batch_size=1, max_tokens=7)
