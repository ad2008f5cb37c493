"""Memory by item against what autograd keeps and what a step takes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmray.accounting import num_parameters, training_memory
from lmray.accounting.memory import Precision
from lmray.config import Model, Optim
from lmray.errors import PreflightError
from lmray.model import TransformerLM
from lmray.training.chunked_loss import mean_cross_entropy
from lmray.training.optimizers import make_optimizer
from lmray.training.peak_memory import measured_peak
from lmray.training.precision import autocast, prepare
from tests.model.architectures import ONE_SWITCH, models, small

NOT_SAVED = {
    *("weights", "gradients", "first moments", "second moments", "fp32 copies of the weights"),
}
TRANSIENT = {"logits, then their gradient", "gradient of the logits"}
PRECISIONS: list[Precision] = ["fp32", "bf16", "bf16_weights"]


def kept_by_autograd(model, batch, precision):
    """Bytes of all tensors that the backward pass needs, parameters and buffers aside."""
    torch.manual_seed(0)
    lm = TransformerLM.from_config(model)
    prepare(lm, precision)
    owned = {t.untyped_storage().data_ptr() for t in (*lm.parameters(), *lm.buffers())}
    ids, targets = (torch.zeros(batch, model.context_length, dtype=torch.int64) for _ in range(2))
    found, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        autocast(precision, torch.device("cpu")),
    ):
        mean_cross_entropy(lm(ids), targets)
    return sum(found.values())


def assert_exact(model, precision):
    memory = training_memory(model, precision)
    activations = sum(n for name, n in memory.per_sequence.items() if name not in TRANSIENT)
    fixed = sum(count for name, count in memory.fixed.items() if name not in NOT_SAVED)
    # From two sequences on: of one, torch multiplies some heads where they lie.
    two, four = (kept_by_autograd(model, batch, precision) for batch in (2, 4))
    assert four - two == 2 * activations
    assert two == fixed + 2 * activations


BIG = {"vocab_size": 100, "context_length": 32, "d_model": 64}


@pytest.mark.parametrize(
    ("attention", "precision"),
    [("math", "fp32"), ("math", "bf16"), ("sdpa", "fp32"), ("sdpa", "bf16")],
)
@pytest.mark.parametrize("changes", ONE_SWITCH, ids=str)
def test_the_activations_are_those_that_autograd_keeps(changes, attention, precision):
    assert_exact(small(**BIG, attention=attention, **changes), precision)


@settings(max_examples=30)
@given(models(), st.sampled_from(PRECISIONS))
def test_the_activations_of_every_model(model, precision):
    sizes = {"context_length": 16, "num_heads": 4, "d_ff": 40, "vocab_size": 64}
    assert_exact(Model(**model.model_dump() | sizes), precision)


def nbytes(tensors):
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("changes", [{}, {"tied_embeddings": True, "value_embeddings": True}])
def test_what_is_held_for_each_parameter_is_what_a_step_leaves(changes, precision):
    model = small(**changes)
    lm = TransformerLM.from_config(model)
    prepare(lm, precision)
    optimizer = make_optimizer(lm, Optim(precision=precision))
    ids = torch.zeros(1, model.context_length, dtype=torch.int64)
    with autocast(precision, torch.device("cpu")):
        loss = mean_cross_entropy(lm(ids), ids)
    loss.backward()
    optimizer.step()
    states = list(optimizer.state.values())
    held = {
        "weights": nbytes(lm.parameters()),
        "gradients": nbytes(p.grad for p in lm.parameters() if p.grad is not None),
        "first moments": nbytes(state["exp_avg"] for state in states),
        "second moments": nbytes(state["exp_avg_sq"] for state in states),
        "fp32 copies of the weights": nbytes(s["master"] for s in states if "master" in s),
    }
    fixed = training_memory(model, precision).fixed
    assert {name: fixed.get(name, 0) for name in NOT_SAVED} == held


def test_tf32_holds_what_fp32_holds():
    assert training_memory(small(), "tf32") == training_memory(small(), "fp32")


def test_adamw_in_fp32_holds_sixteen_bytes_a_parameter():
    model = small()
    held = training_memory(model).fixed
    assert sum(held.get(name, 0) for name in NOT_SAVED) == 16 * num_parameters(model)


def test_the_largest_batch_is_the_last_that_fits():
    memory = training_memory(small())
    batch = memory.largest_batch(10**8)
    assert memory.total(batch) <= 10**8 < memory.total(batch + 1)
    assert memory.largest_batch(memory.total(7)) == 7
    with pytest.raises(PreflightError, match=r"takes .* bytes at a batch of one .* 1,000; choose"):
        memory.largest_batch(1000)


def test_a_measured_peak_is_near_the_list():
    """Resident memory also has what kernels use for a moment, and AdamW's temporaries."""
    model = small(vocab_size=4000, context_length=128, d_model=256, d_ff=1024, attention="sdpa")
    try:
        measured = measured_peak(model, 8, "cpu")
    except PreflightError as error:
        pytest.skip(str(error))
    assert 0.6 < measured / training_memory(model).total(8) < 1.6


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_measured_peak_on_a_gpu_is_near_the_list(precision):
    model = small(vocab_size=4000, context_length=256, d_model=512, d_ff=2048, attention="sdpa")
    listed = training_memory(model, precision).total(16)
    assert 0.7 < measured_peak(model, 16, "cuda", precision) / listed < 1.2
