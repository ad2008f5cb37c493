"""The largest attention logit against the logits that spelled-out attention makes."""

import pytest
import torch

from lmray.model import TransformerLM, attention, attention_logits, max_attention_logits
from tests.model.architectures import ONE_SWITCH, small

MANY = {"num_kv_heads": 2, "qk_norm": True, "logit_softcap": 0.5, "value_embeddings": True}


def reference(model: TransformerLM, ids: torch.Tensor, monkeypatch) -> list[float]:
    """The maxima of what scaled_dot_product_attention of the coursework is called with."""
    found, true = [], attention.scaled_dot_product_attention

    def noted(q, k, v, mask):
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask, float("-inf"))
        found.append(scores.max().item())
        return true(q, k, v, mask)

    with monkeypatch.context() as patched, torch.no_grad():
        patched.setattr(attention, "scaled_dot_product_attention", noted)
        model(ids)
    return found


@pytest.mark.parametrize("kernel", ["math", "sdpa"])
@pytest.mark.parametrize("switches", [*ONE_SWITCH, MANY], ids=str)
def test_every_layers_maximum_is_that_of_its_scores(switches, kernel, monkeypatch):
    torch.manual_seed(0)
    spelled = TransformerLM.from_config(small(attention="math", **switches))
    model = TransformerLM.from_config(small(attention=kernel, **switches))
    model.load_state_dict(spelled.state_dict())
    ids = torch.randint(64, (3, 12))
    expected = pytest.approx(reference(spelled, ids, monkeypatch), rel=1e-5)
    assert max_attention_logits(model, ids).tolist() == expected
    # In pieces of a few queries, where the mask has parts of many shapes.
    for piece in (1, 3 * 4 * 12 * 5):
        monkeypatch.setattr(attention_logits, "_PIECE", piece)
        assert max_attention_logits(model, ids).tolist() == expected


def test_a_maximum_of_what_comes_later_is_not_seen():
    torch.manual_seed(0)
    model = TransformerLM.from_config(small(num_layers=1, position="none"))
    ids = torch.tensor([[1, 2, 3, 4, 5, 6]])
    attend = model.layers[0].attn
    with torch.no_grad():
        x = model.layers[0].ln1(model.token_embeddings(ids))
        q, k, _ = attend.queries_keys_values(x, torch.arange(6))
        pairs = (q @ k.mT)[0] / attend.width**0.5
    earlier = max(pairs[:, i, j].max().item() for i in range(6) for j in range(i + 1))
    assert pairs.max().item() > earlier, "else this test shows nothing"
    assert max_attention_logits(model, ids).item() == pytest.approx(earlier, rel=1e-6)


def test_looking_leaves_nothing_behind_and_keeps_fp32_under_autocast():
    torch.manual_seed(0)
    model = TransformerLM.from_config(small(qk_norm=True))
    ids = torch.randint(64, (2, 12))
    before = model(ids)
    exact = max_attention_logits(model, ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = max_attention_logits(model, ids)
    assert (exact.dtype, rounded.dtype) == (torch.float32, torch.float32)
    assert not exact.requires_grad
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
    assert torch.equal(model(ids), before)
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(IndexError):
        max_attention_logits(model, torch.full((1, 2), 64))
    assert not any(module._forward_pre_hooks for module in model.modules())
