"""The key-value cache: whatever way the tokens come, the scores are those of one pass."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmray.model import TransformerLM
from tests.devices import DEVICES
from tests.model.architectures import ONE_SWITCH, models, small


def build(model):
    torch.manual_seed(0)
    return TransformerLM.from_config(model).double()


def in_parts(lm, ids, lengths):
    """Logits of `ids`, fed to a cache in parts of these lengths."""
    caches = lm.new_caches(len(ids), ids.shape[1])
    start, found = 0, []
    for length in lengths:
        positions = torch.arange(start, start + length, device=ids.device).expand(len(ids), -1)
        found.append(lm(ids[:, start : start + length], positions, caches=caches))
        start += length
    return torch.cat(found, 1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("attention", ["math", "sdpa"])
@pytest.mark.parametrize("changes", ONE_SWITCH, ids=str)
def test_token_by_token_equals_one_pass(changes, attention, device):
    model = small(attention=attention, **changes)
    lm, ids = build(model).to(device), torch.randint(64, (2, 12), device=device)
    with torch.no_grad():
        torch.testing.assert_close(in_parts(lm, ids, [5] + [1] * 7), lm(ids), rtol=1e-9, atol=1e-10)


@settings(max_examples=20)
@given(models(), st.data())
def test_parts_of_any_lengths_equal_one_pass(model, data):
    lm, ids = build(model), torch.randint(model.vocab_size, (2, model.context_length))
    lengths = []
    while sum(lengths) < model.context_length:
        lengths.append(data.draw(st.integers(1, model.context_length - sum(lengths))))
    with torch.no_grad():
        torch.testing.assert_close(in_parts(lm, ids, lengths), lm(ids), rtol=1e-9, atol=1e-10)


def test_rows_stand_at_different_positions():
    """A shorter text is padded behind; what the padding left in the cache is never looked at."""
    lm, ids = build(small()), torch.randint(64, (2, 12))
    padded = ids[:, :6].clone()
    padded[1, 3:] = 63
    caches = lm.new_caches(2, 12)
    with torch.no_grad():
        first = lm(padded, torch.arange(6).expand(2, -1), caches=caches)
        positions = torch.tensor([[6], [3]])
        second = lm(ids.gather(1, positions), positions, caches=caches)
        whole = lm(ids)
    torch.testing.assert_close(first[1, :3], whole[1, :3])
    torch.testing.assert_close(second[:, 0], whole[[0, 1], [6, 3]])


def test_a_cache_holds_the_shared_heads_alone():
    """Eight query heads over two of keys: a quarter of the memory."""

    def numbers(**changes):
        model = small(num_heads=8, **changes)
        caches = build(model).new_caches(1, 12)
        return sum(t.numel() for cache in caches for t in (cache._keys, cache._values))

    assert numbers() == 2 * 3 * 12 * 32
    assert numbers(num_kv_heads=2) == numbers() // 4
