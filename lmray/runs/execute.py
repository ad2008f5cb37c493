"""Carrying out one run in its directory: the training loop with files, lock and tracking."""

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lmray import remote
from lmray.config import Run, identity, run_id
from lmray.dataset import Splits
from lmray.runs.lineage import beginning
from lmray.runs.run_directory import FINAL, MetricsWriter, RunDirectory, Status
from lmray.runs.samples import sampler
from lmray.runs.tracking import check_tracking, open_trackers
from lmray.training.loop import Record, Report, check_data, never, train


def execute(
    run: Run,
    splits: Splits,
    runs: Path,
    *,
    report: Report,
    interrupted: Callable[[], bool] = never,
    group: str = "",
) -> RunDirectory:
    """Trains `run` in runs/<run_id>/ and leaves its status there; a done run is not run twice.

    `report` receives each record after it is on disk, but for samples, which are there alone. If it
    raises SystemExit, as Ray Tune does in a trial it stops, the run's status is stopped. `group` is
    the sweep's name for Weights & Biases.
    Under torch.distributed each worker calls this and rank 0 writes.

    Raises PreflightError if another process trains the run, its data does not fit, it cannot begin
    from its parent or its tracking cannot begin; any error of the training itself after writing it
    down as failed or out_of_memory.
    """
    check_data(run, splits)
    identifier = run_id(run, splits.digest)
    directory = RunDirectory(runs / identifier)
    remote.refresh(directory.path)
    if directory.status in FINAL:
        return directory
    go = partial(
        train,
        run,
        splits,
        directory.checkpoints,
        identity=identity(run, splits.digest),
        interrupted=interrupted,
        begin=beginning(run, splits.digest, directory),
    )
    if dist.is_initialized() and dist.get_rank() > 0:
        go(report=report)
        return directory
    sample = sampler(run.evaluation, splits.tokenizer)
    check_tracking(run)
    with directory.locked():
        directory.begin(run, identifier, {"digest": splits.digest, "path": str(splits.directory)})
        remote.publish(directory.path)
        metrics = MetricsWriter(directory.path / "metrics.jsonl")
        samples = MetricsWriter(directory.path / "samples.jsonl")
        trackers = open_trackers(run, identifier, directory.path, group=group)

        def report_all(record: Record) -> None:
            if record["kind"] == "start":
                keys = ("parameters", "compile_s", "device", "peak_memory_of")
                facts = {key: record[key] for key in keys}
                directory.note({"began_at_step": record["step"], **facts})
            if record["kind"] in ("start", "sample"):
                samples(record)
            if record["kind"] != "sample":
                for receive in (metrics, *trackers, report):
                    receive(record)
            # The last record before the first step: a run from step 0 is evaluated there.
            if record["kind"] == ("start" if record["step"] else "validation"):
                directory.note({"first_step_at": round(time.time(), 3)})

        status: Status = "failed"
        facts: dict[str, Any] = {}
        try:
            outcome = go(report=report_all, sample=sample)
            status = outcome.status
            facts = {key: value for key, value in asdict(outcome).items() if key != "status"}
        except SystemExit:
            status = "stopped"
            raise
        except (torch.OutOfMemoryError, MemoryError) as error:
            status, facts = "out_of_memory", {"error": str(error)}
            raise
        except BaseException as error:
            facts = {"error": f"{type(error).__name__}: {error}"}
            raise
        finally:
            metrics.close()
            samples.close()
            directory.finish(status, facts)
            for tracker in trackers:
                tracker.close(status)
            remote.publish(directory.path)
    return directory
