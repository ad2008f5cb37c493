"""runs/<run_id>/: run.json says what a run is and how it stands, metrics.jsonl what it measured,
samples.jsonl what it wrote at each evaluation."""

import os
import time
from calendar import timegm
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from lmray import remote
from lmray.config import Run
from lmray.errors import PreflightError
from lmray.runs.provenance import provenance
from lmray.storage import canonical_json, locked, read_json, read_lines, write_bytes, write_json

FORMAT_VERSION = 1

Status = Literal[
    "absent",
    "running",
    "done",
    "stopped",
    "diverged",
    "out_of_memory",
    "preempted",
    "failed",
    "imported",
]
"""How a run stands; absent before its first life, imported without any."""

_TIME = "%Y-%m-%dT%H:%M:%SZ"

FINAL: tuple[Status, ...] = ("done", "diverged")
"""Statuses that training again would only repeat."""


class RunDirectory:
    """One run's files."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    @property
    def facts(self) -> dict[str, Any]:
        """The contents of run.json.

        Raises PreflightError if there is no run here.
        """
        if not (self.path / "run.json").exists():
            raise PreflightError(
                f"no run at {self.path}: run.json is missing; name a directory beneath runs/"
            )
        return read_json(self.path / "run.json")

    @property
    def status(self) -> Status:
        """How the run stands."""
        return self.facts["status"] if (self.path / "run.json").exists() else "absent"

    @property
    def config(self) -> Run:
        """The run's configuration."""
        return Run.model_validate(self.facts["config"])

    @property
    def began_at_tokens(self) -> int:
        """Training tokens that the run took over with its parent's state; 0 without a parent."""
        facts = self.facts if self.status != "absent" else {"config": {}}
        if facts["config"].get("begins_from", "none") == "none":
            return 0
        begun = [life["began_at_step"] for life in facts["lives"] if "began_at_step" in life]
        return self.config.batches.tokens(begun[0]) if begun else 0

    def begun_since(self, moment: float) -> bool:
        """Whether the last life of the run began after that moment, in seconds since 1970."""
        if self.status == "absent":
            return False
        return timegm(time.strptime(self.facts["lives"][-1]["started"], _TIME)) > moment

    def records(self, kind: str) -> list[dict[str, Any]]:
        """The records of metrics.jsonl of one kind, in order."""
        return [r for r in read_lines(self.path / "metrics.jsonl") if r["kind"] == kind]

    def final_validation(self) -> dict[str, Any]:
        """The record on the whole validation split; empty for a run that did not reach its end."""
        whole = [r for r in self.records("validation") if r["scope"] == "all"]
        return whole[-1] if whole else {}

    def begin(self, run: Run, run_id: str, data: dict[str, str]) -> None:
        """Writes run.json with status running; what earlier lives recorded is kept."""
        earlier = self.facts["lives"] if self.status != "absent" else []
        facts = {
            "format_version": FORMAT_VERSION,
            "run_id": run_id,
            "status": "running",
            "config": run.model_dump(),
            "data": data,
            "lives": [*earlier, {"started": _now(), **provenance()}],
        }
        write_json(self.path / "run.json", facts)

    def note(self, facts: dict[str, Any]) -> None:
        """Adds facts to this life of the run."""
        known = self.facts
        known["lives"][-1] |= facts
        write_json(self.path / "run.json", known)

    def adopt(self, run: Run, run_id: str, source: dict[str, Any]) -> None:
        """Writes run.json with status imported; `source` says where the model came from."""
        facts = {
            "format_version": FORMAT_VERSION,
            "run_id": run_id,
            "status": "imported",
            "config": run.model_dump(),
            "source": source,
            "lives": [{"started": _now(), **provenance()}],
        }
        write_json(self.path / "run.json", facts)

    def finish(self, status: Status, facts: dict[str, Any]) -> None:
        """Writes how this life of the run ended."""
        known = self.facts
        known["lives"][-1] |= {"ended": _now(), "status": status}
        write_json(self.path / "run.json", known | facts | {"status": status})

    def locked(self) -> AbstractContextManager[None]:
        """Keeps a second process from training the same run; the lock dies with its process.

        Raises PreflightError if another one holds it.
        """
        return locked(self.path, f"another process is training {self.path}; wait for it or stop it")


class MetricsWriter:
    """The `report` callable that writes metrics.jsonl, and another one samples.jsonl.

    A "start" record is not written: it cuts off what an earlier life recorded beyond the step that
    this one starts from, so that the file is that of a run that was never interrupted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab")

    def __call__(self, record: dict[str, Any]) -> None:
        """Writes one record; whole lines reach the file, and the disk once a validation is in."""
        if record["kind"] == "start":
            self._rewind(record["step"])
            return
        self._file.write((canonical_json(record) + "\n").encode())
        self._file.flush()
        if record["kind"] == "validation":
            os.fsync(self._file.fileno())

    def _rewind(self, step: int) -> None:
        kept = [r for r in read_lines(self._path) if 0 < step and r["step"] <= step]
        self._file.close()
        write_bytes(self._path, b"".join((canonical_json(r) + "\n").encode() for r in kept))
        self._file = self._path.open("ab")

    def close(self) -> None:
        """Brings everything to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _now() -> str:
    return time.strftime(_TIME, time.gmtime())


def list_runs(runs: Path) -> list[RunDirectory]:
    """The runs beneath `runs`, by name; of a URL's, the records are fetched."""
    for name in remote.names(runs):
        for file in ("run.json", "metrics.jsonl"):
            remote.refresh(runs / name / file)
    return [RunDirectory(path.parent) for path in sorted(runs.glob("*/run.json"))]
