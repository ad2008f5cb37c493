"""Weights & Biases, off unless the config asks for it; metrics.jsonl is written in any case."""

from pathlib import Path
from typing import Any

from lmray.config import Run, flatten


class Tracker:
    """The `report` callable that sends records to Weights & Biases, run for run."""

    def __init__(self, run: Run, run_id: str, directory: Path, *, group: str) -> None:
        import wandb  # costs a second; only runs that are tracked pay it

        self._run = wandb.init(
            project=run.tracking.project,
            id=run_id,
            name=f"{group}-{run_id}" if group else run_id,
            group=group or None,
            config=flatten(run),
            dir=str(directory),
            mode="online" if run.tracking.wandb == "online" else "offline",
            # An online run goes on under its id; offline, each life is a folder of its own to sync.
            resume="allow" if run.tracking.wandb == "online" else None,
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )

    def __call__(self, record: dict[str, Any]) -> None:
        """Logs a train or validation record under its kind, against tokens."""
        if record["kind"] == "start":
            return
        prefix = record["kind"] if record["kind"] == "train" else f"validation/{record['scope']}"
        numbers = {k: v for k, v in record.items() if isinstance(v, int | float)}
        tokens = {"tokens": numbers.pop("tokens")}
        logged = {f"{prefix}/{key}": value for key, value in numbers.items() if key != "step"}
        self._run.log(logged | tokens, step=record["step"])

    def close(self, status: str) -> None:
        """Ends the run there; what is offline is synced later with `wandb sync`."""
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status in ("done", "stopped", "diverged") else 1)
