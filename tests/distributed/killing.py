"""Sweeps in a process of their own that can be killed, and what their ledger would be otherwise."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmray.dataset import open_splits
from lmray.runs.run_directory import RunDirectory
from lmray.sweeps.decisions.referee import Referee
from lmray.sweeps.ledger import Ledger, read_events
from lmray.sweeps.space import Space

_MAIN = """
import signal
import sys
# As in a terminal, also where the tests run in a shell's background.
signal.signal(signal.SIGINT, signal.default_int_handler)
import lmray.distributed
import ray
cpus, gpus, memory, *words = sys.argv[1:]
ray.init(address="local", num_cpus=int(cpus), num_gpus=int(gpus), include_dashboard=False,
         log_to_driver=False, logging_level="ERROR", _memory=int(memory) or None)
from lmray.cli.main import main
sys.argv = ["lmray", *words]
main()
"""
_SPACE = """'''Hypothesis: none; killed in the middle.'''
from lmray.config import Run
from lmray.sweeps.decisions.asha import Asha
BASE = Run.model_validate({base!r})
SPACE = {axes!r}
SEEDS = {seeds!r}
ASHA = {asha!r}
"""


def write_space(file: Path, space: Space) -> None:
    """A file from which the space is read again."""
    base, axes = space.base.model_dump(), dict(space.axes)
    facts = {"base": base, "axes": axes, "seeds": list(space.seeds), "asha": space.asha}
    file.write_text(_SPACE.format(**facts))


class Driver:
    """`lmray sweep run` on one place, so that only one order of completion is possible.

    Or on as many as Ray is told there are; the GPUs need not exist. `memory` is what Ray gives out,
    in bytes, 0 for what it finds; `within` are words before the command that make its surroundings.
    """

    def __init__(
        self,
        space: Space,
        root: Path,
        *options: str,
        cpus: int = 1,
        gpus: int = 0,
        memory: int = 0,
        within: Sequence[str] = (),
    ) -> None:
        file = root / "killed.py"
        write_space(file, space)
        self.mark = uuid.uuid4().hex
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "RAY_AUTH_MODE": "disabled",
            "LMRAY_TEST_MARK": self.mark,
        }
        environment.pop("RAY_ADDRESS", None)
        words = ("sweep", "run", str(file), "--root", str(root), *options)
        has = map(str, (cpus, gpus, memory))
        command = [*within, sys.executable, "-c", _MAIN, *has, *words]
        self._log = (root / "driver.log").open("ab")
        self.process = subprocess.Popen(
            command, env=environment, stdout=self._log, stderr=self._log, start_new_session=True
        )
        self._deadline = time.monotonic() + 280

    def check(self) -> None:
        """Fails if it has ended, or takes too long."""
        assert self.process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < self._deadline

    def kill(self) -> None:
        """kill -9, of the driver alone: Ray's processes notice, or are still there a while."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def wait(self, seconds: float = 280) -> None:
        """Lets it finish."""
        assert self.process.wait(timeout=seconds) == 0, Path(self._log.name).read_text()[-2000:]

    def processes(self, name: str) -> list[int]:
        """Its processes, and Ray's beneath it, whose command line contains `name`."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                ours = f"LMRAY_TEST_MARK={self.mark}".encode() in (folder / "environ").read_bytes()
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if ours and name in command:
                found.append(int(folder.name))
        return found


def decisions(ledger: Path) -> list[tuple[str, str, Any]]:
    """What was decided and measured, without times, failures and the starts that follow them."""
    kept, seen = [], set()
    for event in read_events(ledger):
        if event.kind == "failed" or (event.kind == "started" and event.trial in seen):
            continue
        seen.add(event.trial)
        facts = {k: event.facts.get(k) for k in ("rung", "past", "step", "tokens", "loss")}
        kept.append((event.kind, event.trial, facts))
    return kept


def undisturbed(space: Space, root: Path) -> list[tuple[str, str, Any]]:
    """The decisions of a referee with one place that is told what the runs measured."""
    path = root / "undisturbed.jsonl"
    trials = space.trials(open_splits(space.base.data.tokens).digest)
    budget = space.base.budget.tokens
    seeds = len(space.seeds)
    referee = Referee(space.asha, budget, Ledger(path), trials, places=1, seeds=seeds)
    while not referee.finished:
        trial = referee.jobs.popleft()
        run = RunDirectory(root / "runs" / trial)
        for record in run.records("validation"):
            if record["scope"] == "prefix" and record["tokens"] in referee.levels:
                known = len(read_events(path))
                referee.judge(trial, record)
                if any(e.kind == "paused" for e in read_events(path)[known:] if e.trial == trial):
                    referee.ended(trial, "preempted", {"tokens": record["tokens"]})
                    break
        else:
            facts, final = run.facts, run.final_validation()
            where = {"step": facts["step"], "tokens": facts["tokens"], "loss": final["loss"]}
            referee.ended(trial, facts["status"], where)
    return decisions(path)
