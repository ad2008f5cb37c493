"""Ray Train around the training loop: a run whose global batches several workers share."""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig

from lmray.config import Run, run_id
from lmray.dataset import Splits, open_splits
from lmray.experiments.execute import execute
from lmray.experiments.run_directory import RunDirectory
from lmray.training.loop import never


def train_on_workers(
    run: Run,
    splits: Splits,
    runs: Path,
    *,
    group: str = "",
    callbacks: Sequence[Any] = (),
    interrupted: Callable[[], bool] = never,
) -> RunDirectory:
    """Trains `run` on run.execution.workers processes and returns its directory.

    The directory must be one that every worker reaches. Losses are those of one worker up to the
    order of fp32 sums; a lost worker restarts the group from the newest checkpoint, once.
    `callbacks` are Ray Train's, for a caller within Ray Tune.
    """
    absolute = run.model_copy(
        update={"data": run.data.model_copy(update={"tokens": str(splits.directory.resolve())})}
    )
    identifier = run_id(run, splits.digest)
    directory = RunDirectory(runs / identifier)
    with tempfile.TemporaryDirectory(prefix="lmray-train-") as scratch:
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "run": absolute.model_dump(),
                "runs": str(runs.resolve()),
                "group": group,
                "interrupted": interrupted,
            },
            scaling_config=ScalingConfig(
                num_workers=run.execution.workers,
                use_gpu=run.execution.device != "cpu" and _has_gpus(),
                resources_per_worker={"CPU": 1},
            ),
            run_config=RunConfig(
                name=identifier,
                storage_path=scratch,
                callbacks=list(callbacks),
                failure_config=FailureConfig(max_failures=1),
            ),
        )
        try:
            trainer.fit()
        finally:
            # Interrupted from here, the workers end without a chance to say so themselves.
            if directory.status == "running":
                directory.finish("preempted", {})
    return directory


def _has_gpus() -> bool:
    return ray.cluster_resources().get("GPU", 0) > 0


def _work(config: dict[str, Any]) -> None:
    """One worker: the loop, with validation losses reported to Ray Train."""
    run = Run.model_validate(config["run"])

    def report(record: dict[str, Any]) -> None:
        if record["kind"] == "validation" and record["scope"] == "prefix":
            ray.train.report({"message": json.dumps(record)})

    splits = open_splits(run.data.tokens)
    execute(
        run,
        splits,
        Path(config["runs"]),
        report=report,
        group=config["group"],
        interrupted=config["interrupted"],
    )
