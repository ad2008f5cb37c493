import json
import sys
from pathlib import Path

import pytest
import torch

from lmray.cli.main import main
from lmray.config import BatchPhase, Budget, Data, Execution, flatten
from lmray.dataset import open_splits
from lmray.distributed.train import train_on_workers
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from tests.small import small_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def losses(directory: RunDirectory) -> list[float]:
    lines = (directory.path / "metrics.jsonl").read_text().splitlines()
    return [record["loss"] for record in map(json.loads, lines)]


@pytest.mark.usefixtures("local_ray")
def test_two_workers_have_the_losses_of_one(small_dataset: Path, tmp_path: Path):
    splits = open_splits(small_dataset)
    ramp = [BatchPhase(share=0.3, batch_size=2)]
    data = Data(tokens=str(small_dataset), batch_size=4, batch_ramp=ramp)
    alone = small_run(small_dataset, data=data)
    together = alone.model_copy(
        update={"execution": Execution(device="cpu", workers=2, threads=1, log_interval_steps=1)}
    )
    one = execute(alone, splits, tmp_path / "one", report=lambda record: None)
    two = train_on_workers(together, splits, tmp_path / "two")
    assert two.path.name == one.path.name, "the number of workers is not part of the experiment"
    assert two.status == "done"
    assert len(losses(two)) == len(losses(one))
    # Equal but for the order in which fp32 gradients are summed.
    torch.testing.assert_close(
        torch.tensor(losses(two)), torch.tensor(losses(one)), rtol=2e-5, atol=0
    )


@pytest.mark.usefixtures("local_ray")
def test_more_workers_than_this_machine_has_cores_for_are_refused_and_not_waited_for(
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    data = Data(tokens=str(small_dataset), batch_size=4096)
    run = small_run(small_dataset, data=data, budget=Budget(tokens=4096 * 16))
    values = flatten(run) | {"execution.workers": 4096, "execution.device": "cpu"}
    words = [f"{key}={value}" for key, value in values.items()]
    monkeypatch.setattr(sys, "argv", ["lmray", "train", "--root", str(tmp_path), *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    assert "execution.workers=4096, but Ray has room for" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/*/metrics.jsonl"))
