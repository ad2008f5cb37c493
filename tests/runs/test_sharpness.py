"""Sharpness at the checkpoints of a real run, against Hessian products by autograd itself."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from lmray.config import Execution, Model, Optim
from lmray.dataset import BatchSampler, open_splits
from lmray.errors import PreflightError
from lmray.model import TransformerLM
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from lmray.runs.sharpness import over_limit, read_sharpness, sharpness_along
from lmray.training import checkpoint
from tests.small import VOCAB_SIZE, small_run

KEEPS = Execution(
    device="cpu", threads=1, checkpoint_interval_steps=10, keep_checkpoints=9, log_interval_steps=1
)
# Without norms: theirs is not differentiated twice.
SMALL = Model(
    vocab_size=VOCAB_SIZE, context_length=16, num_layers=1, d_model=8, num_heads=2, norm="none"
)


def trained(tokens: Path, folder: Path, **changes: object) -> RunDirectory:
    run = small_run(tokens, model=SMALL, execution=KEEPS, **changes)
    return execute(run, open_splits(tokens), folder / "runs", report=lambda record: None)


def eigenvalue_by_autograd(run: RunDirectory, path: Path, diagonal: torch.Tensor) -> float:
    """Power iteration with products that autograd differentiates twice."""
    model = TransformerLM.from_config(run.config.model).double()
    checkpoint.load_weights(path, model)
    splits = open_splits(run.config.data.tokens)
    inputs, targets = map(torch.from_numpy, BatchSampler(splits.train, 4, 16, seed=0).batch(0))
    parameters = list(model.parameters())
    with sdpa_kernel(SDPBackend.MATH):
        loss = torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        first = torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=True)]
        )
        vector = torch.randn(len(first), generator=torch.Generator().manual_seed(5)).double()
        value = 0.0
        for _ in range(200):
            vector = vector / vector.norm()
            product = torch.autograd.grad(
                first, parameters, diagonal.rsqrt() * vector, retain_graph=True
            )
            image = diagonal.rsqrt() * torch.cat([part.flatten() for part in product])
            value = float(vector @ image)
            vector = image.detach()
    return value


def test_it_is_the_hessians_and_adams_own_preconditioner(small_dataset: Path, tmp_path: Path):
    run = trained(small_dataset, tmp_path)
    records = sharpness_along(run, sequences=4, products=200)
    assert [record["step"] for record in records] == [10, 20]
    assert records == read_sharpness(run)
    last = records[-1]
    path = checkpoint.newest_first(run.checkpoints)[0]
    tensors, _ = checkpoint.optimizer_tensors(path)
    names = [name for name, _ in TransformerLM.from_config(SMALL).named_parameters()]
    square = torch.cat([tensors[f"{name}.exp_avg_sq"].flatten() for name in names]).double()
    optim = run.config.optim
    diagonal = (1 - optim.beta1**20) * ((square / (1 - optim.beta2**20)).sqrt() + optim.eps)
    plain = eigenvalue_by_autograd(run, path, torch.ones(len(diagonal)).double())
    assert last["sharpness"] == pytest.approx(plain, rel=5e-3)
    expected = eigenvalue_by_autograd(run, path, diagonal)
    assert last["preconditioned"] == pytest.approx(expected, rel=5e-3)
    rates = {r["step"]: r["lr"] for r in run.records("train")}
    assert last["lr"] == rates[20]
    assert last["limit"] == pytest.approx(38 / rates[20])
    assert over_limit(last) == last["preconditioned"] / last["limit"]


def test_what_is_known_is_not_measured_again_unless_it_is_asked_otherwise(
    small_dataset: Path, tmp_path: Path
):
    run = trained(small_dataset, tmp_path)
    first = sharpness_along(run, sequences=2, products=2)
    marked = [{**record, "sharpness": -1.0} for record in first]
    (run.path / "sharpness.jsonl").write_text("".join(json.dumps(r) + "\n" for r in marked))
    assert sharpness_along(run, sequences=2, products=2) == marked
    assert sharpness_along(run, sequences=2, products=3)[0]["sharpness"] != -1.0


@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_sgd_has_the_limit_of_its_momentum_and_muon_none(
    small_dataset: Path, tmp_path: Path, name: str
):
    run = trained(small_dataset, tmp_path, optim=Optim(name=name, lr=1e-2, momentum=0.5))
    record = sharpness_along(run, sequences=2, products=2)[-1]
    assert "preconditioned" not in record
    if name == "sgd":
        assert record["limit"] == pytest.approx(3 / record["lr"])
        assert over_limit(record) == record["sharpness"] / record["limit"]
    else:
        assert over_limit(record) is None


def test_a_run_without_checkpoints_is_refused_with_the_remedy(small_dataset: Path, tmp_path: Path):
    run = RunDirectory(tmp_path / "none")
    run.begin(small_run(small_dataset), "none", {"digest": "d", "path": ""})
    with pytest.raises(PreflightError, match=r"execution.keep_checkpoints=N keeps N"):
        sharpness_along(run, sequences=2, products=2)
