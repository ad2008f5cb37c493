"""Ray Train around the training loop: a run whose global batches several workers share."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ray.train
import torch.distributed as dist
from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig

from lmray import remote
from lmray.config import Run, run_id
from lmray.dataset import Splits, open_splits
from lmray.distributed.cluster import nodes
from lmray.distributed.notice import given, heeded
from lmray.distributed.predecessor import wait_for_predecessor
from lmray.distributed.process_group import ProcessGroup
from lmray.distributed.shared_root import require_shared
from lmray.distributed.watching import watched
from lmray.runs.execute import execute
from lmray.runs.lineage import beginning
from lmray.runs.run_directory import RunDirectory
from lmray.sweeps.decisions.halving import MAX_LOSSES
from lmray.sweeps.decisions.verdicts import Verdicts
from lmray.sweeps.places import demand
from lmray.training.loop import never

_NOBODY = MappingProxyType({"ledger": "", "id": "", "levels": ()})
"""Whom a run outside a sweep asks for a verdict, at no level."""


def train_on_workers(
    run: Run,
    splits: Splits,
    runs: Path,
    *,
    group: str = "",
    callbacks: Sequence[Any] = (),
    asks: Mapping[str, Any] = _NOBODY,
    interrupted: Callable[[], bool] = never,
) -> RunDirectory:
    """Trains `run` on run.execution.workers processes and returns its directory.

    The directory must be one that every worker reaches. Losses are those of one worker up to the
    order of fp32 sums; a lost worker restarts the group from the newest checkpoint, five times.
    Within a sweep `callbacks` bring what the workers report to Ray Tune, and `asks` has the ledger,
    the trial's id and the levels at which they wait for a verdict. All of them end with a
    checkpoint once `interrupted()`, which each asks for itself, is true for one.

    Raises PreflightError if the run cannot begin from its parent.
    """
    absolute = run.model_copy(
        update={"data": run.data.model_copy(update={"tokens": str(splits.directory.resolve())})}
    )
    identifier = run_id(run, splits.digest)
    name = asks.get("name", identifier)
    directory = RunDirectory(runs / identifier)
    beginning(run, splits.digest, directory)  # refused here, and not by each worker in turn
    with tempfile.TemporaryDirectory(prefix="lmray-train-") as scratch:
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "run": absolute.model_dump(),
                "name": name,
                "runs": str(runs.resolve()),
                "group": group,
                "asks": dict(asks),
                "interrupted": interrupted,
            },
            torch_config=ProcessGroup(),
            scaling_config=ScalingConfig(
                num_workers=run.execution.workers,
                use_gpu="GPU" in demand(run.execution, nodes()),
                resources_per_worker={"CPU": 1},
            ),
            run_config=RunConfig(
                name=name.replace(" ", "_"),
                storage_path=scratch,
                callbacks=list(callbacks),
                failure_config=FailureConfig(max_failures=MAX_LOSSES),
            ),
        )
        try:
            trainer.fit()
        finally:
            for file in ("run.json", "metrics.jsonl"):  # of workers on other nodes
                remote.refresh(directory.path / file)
            # Interrupted from here, the workers end without a chance to say so themselves.
            if directory.status == "running":
                directory.finish("preempted", {})
                remote.publish(directory.path / "run.json")
    return directory


def _work(config: dict[str, Any]) -> None:
    """One worker: the loop, which in a sweep asks at each rung whether it goes on."""
    require_shared()
    run = Run.model_validate(config["run"])

    def tell(record: dict[str, Any]) -> None:
        ray.train.report({"message": json.dumps(record)})

    asks, interrupted = config["asks"], config["interrupted"]
    # Each worker reads the same verdict, for Ray Train lets none go on until all have reported.
    verdicts = Verdicts(remote.cached(asks["ledger"]), asks["id"], asks["levels"], tell, given)
    splits, runs = open_splits(run.data.tokens), remote.cached(config["runs"])
    first = ray.train.get_context().get_world_rank() == 0
    if first:
        wait_for_predecessor(RunDirectory(runs / run_id(run, splits.digest)))
    shown = watched(run, verdicts, sweep=config["group"], trial=config["name"])
    with heeded(), shown if first else nullcontext(verdicts) as report:
        execute(
            run,
            splits,
            runs,
            report=report,
            interrupted=lambda: verdicts.interrupted() or interrupted() or given(),
            group=config["group"],
        )
        # Where one leaves, Ray ends the others: not before rank 0 has written all.
        dist.barrier()
