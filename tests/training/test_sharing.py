"""Gradients that two threads compute, beside those of one."""

from collections.abc import Callable, Iterator

import pytest
import torch

from lmray.model import TransformerLM
from lmray.training.chunked_loss import mean_cross_entropy
from lmray.training.precision import autocast
from lmray.training.sharing import Loss, SharedBackward, backward

VOCAB, LENGTH = 50, 12


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model() -> TransformerLM:
    torch.manual_seed(0)
    return TransformerLM(VOCAB, LENGTH, 16, 2, 2, 32, 10_000.0, attention="sdpa")


def loss_of(model: TransformerLM, sequences: int, precision: str = "fp32") -> Loss:
    ids = torch.randint(VOCAB, (sequences, LENGTH + 1), generator=torch.Generator().manual_seed(1))

    def loss(rows: slice) -> torch.Tensor:
        part = ids[rows]
        with autocast(precision, torch.device("cpu")):
            mean = mean_cross_entropy(model(part[:, :-1]), part[:, 1:])
        return mean * (len(part) / sequences)

    return loss


def gradients(model: TransformerLM) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def computed(
    model: TransformerLM, how: Callable[[Loss, slice], torch.Tensor], loss: Loss, *parts: slice
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model.zero_grad(set_to_none=True)
    total = torch.stack([how(loss, rows) for rows in parts]).sum()
    return total, gradients(model)


@pytest.mark.parametrize("sequences", [1, 2, 5, 8])
def test_the_halves_give_the_gradient_of_the_whole(model: TransformerLM, sequences: int) -> None:
    shared = SharedBackward(list(model.parameters()), 2)
    loss, rows = loss_of(model.double(), sequences), slice(0, sequences)
    torch.testing.assert_close(
        computed(model, shared, loss, rows), computed(model, backward, loss, rows)
    )


def test_micro_batches_add_up(model: TransformerLM) -> None:
    shared = SharedBackward(list(model.parameters()), 2)
    loss = loss_of(model.double(), 7)
    together = computed(model, backward, loss, slice(0, 7))
    apart = computed(model, shared, loss, slice(0, 3), slice(3, 6), slice(6, 7))
    torch.testing.assert_close(apart, together)


def test_every_time_gives_the_same_bits(model: TransformerLM) -> None:
    shared = SharedBackward(list(model.parameters()), 2)
    loss = loss_of(model, 8)
    first = computed(model, shared, loss, slice(0, 8))
    for _ in range(20):
        torch.testing.assert_close(
            computed(model, shared, loss, slice(0, 8)), first, rtol=0, atol=0
        )


def test_each_thread_computes_in_the_precision_asked_for(model: TransformerLM) -> None:
    shared = SharedBackward(list(model.parameters()), 2)
    rows = slice(0, 8)
    in_bf16 = computed(model, shared, loss_of(model, 8, "bf16"), rows)
    torch.testing.assert_close(
        in_bf16, computed(model, backward, loss_of(model, 8, "bf16"), rows), rtol=0.02, atol=2e-3
    )
    in_fp32 = computed(model, shared, loss_of(model, 8), rows)
    assert not torch.equal(in_bf16[0], in_fp32[0])


def test_weights_outside_the_loss_have_no_gradient(model: TransformerLM) -> None:
    stranger = torch.nn.Parameter(torch.ones(3))
    shared = SharedBackward([*model.parameters(), stranger], 2)
    shared(loss_of(model, 4), slice(0, 4))
    assert stranger.grad is None
    assert all(p.grad is not None for p in model.parameters())


def test_what_a_thread_raises_comes_up(model: TransformerLM) -> None:
    shared = SharedBackward(list(model.parameters()), 2)

    def loss(rows: slice) -> torch.Tensor:
        raise torch.OutOfMemoryError(f"rows {rows.start} to {rows.stop}")

    with pytest.raises(torch.OutOfMemoryError, match="rows 0 to 2"):
        shared(loss, slice(0, 4))


def test_the_caller_keeps_its_threads_and_those_that_come_begin_with_them(
    model: TransformerLM,
) -> None:
    shared = SharedBackward(list(model.parameters()), 2)
    counts = list(shared._pool.map(lambda _: torch.get_num_threads(), range(2)))
    assert counts == [1, 1]
    assert torch.get_num_threads() == 2
