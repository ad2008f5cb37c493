"""Kills a sweep many times, and shows that its ledger is that of one that nobody killed.

    python scripts/kill_sweep.py --kills 20

A sweep of eight trials by promotion on one place, so that only one order of completion is possible,
is run to its end once. Then it is run again elsewhere and killed with SIGKILL at random moments:
the driver, the worker that trains, or the raylet, by lot; whenever the driver is gone, the same
command goes on; a sweep that ends before all kills have landed is followed by a fresh one.
Decisions and losses must be those of the undisturbed sweep, line for line, and each life of a run
must begin at a checkpoint, none older than the newest that was there when the one before was
killed.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lmray.config import Budget, Evaluation, Execution, Model
from lmray.runs.run_directory import RunDirectory, list_runs
from lmray.storage import last_line
from lmray.sweeps.decisions.asha import Asha
from lmray.sweeps.ledger import read_events
from lmray.sweeps.space import Space
from lmray.training.checkpoint import newest_step
from tests.distributed.killing import Driver, decisions
from tests.small import small_run, write_dataset

RATES = [1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 2e-2, 2e-3, 5e-3]
LEDGER = Path("sweeps") / "killed" / "ledger.jsonl"
VICTIMS = {"driver": "sweep run", "worker": "ray::ImplicitFunc", "raylet": "raylet/raylet "}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=4000, help="of a trial that is not stopped")
    parser.add_argument("--longest", type=float, default=20.0, help="seconds of training to a kill")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lmray-kill-"))
    question = space(write_dataset(folder), arguments.steps)
    (folder / "straight").mkdir()
    Driver(question, folder / "straight").wait(seconds=3600)
    expected = decisions(folder / "straight" / LEDGER)
    draw, kills, again = random.Random(arguments.seed), dict.fromkeys(VICTIMS, 0), 0
    while (missing := arguments.kills - sum(kills.values())) > 0:
        root = Path(tempfile.mkdtemp(prefix="killed-", dir=folder))
        landed = disturb(question, root, missing, arguments.longest, draw)
        assert decisions(root / LEDGER) == expected, f"the ledgers differ: {root}"
        again += check_lives(question, root, landed)
        for kill in landed:
            kills[kill.victim] += 1
        print(f"{len(read_events(root / LEDGER))} events, {sum(kills.values())} kills", flush=True)
    print(f"{kills}; {again} steps trained twice, all beyond a checkpoint; decisions are equal")


def space(tokens: Path, steps: int) -> Space:
    base = small_run(
        tokens,
        model=Model(vocab_size=300, context_length=16, num_layers=2, d_model=16, num_heads=2),
        budget=Budget(tokens=steps * 64),
        evaluation=Evaluation(interval_tokens=steps * 64 // 16, prefix_tokens=256),
        execution=Execution(device="cpu", threads=1, checkpoint_interval_steps=50),
    )
    asha = Asha(steps * 64 // 8, 2, "promote")
    return Space("killed", "", base, {"optim.lr": RATES}, (0,), asha)


@dataclass(frozen=True)
class Kill:
    """A kill, and where each run was right after it: its lives, its newest checkpoint, its step."""

    victim: str
    runs: dict[str, tuple[int, int, int]]


def disturb(
    question: Space, root: Path, most: int, longest: float, draw: random.Random
) -> list[Kill]:
    """Kills what is drawn until that is enough or the sweep is done, and lets it finish."""
    done: list[Kill] = []
    driver = Driver(question, root)
    while len(done) < most and driver.process.poll() != 0:
        if driver.process.poll() is not None:
            driver = Driver(question, root)
        if not alive(driver, "ray::ImplicitFunc.train"):
            continue
        moment = time.monotonic() + draw.uniform(0, longest)
        while time.monotonic() < moment and driver.process.poll() is None:
            time.sleep(0.05)
        victim = draw.choice(list(VICTIMS))
        for pid in driver.processes(VICTIMS[victim])[:1]:
            os.kill(pid, signal.SIGKILL)
            done.append(Kill(victim, {run.path.name: place(run) for run in runs(root)}))
            print(f"killed the {victim}, {len(done)} of {most}", flush=True)
            if victim != "worker":
                driver.process.wait(timeout=300)
    if driver.process.poll() is None:
        driver.wait(seconds=3600)
    while driver.process.poll() != 0:
        driver = Driver(question, root)
        driver.process.wait(timeout=3600)
    return done


def runs(root: Path) -> list[RunDirectory]:
    return list_runs(root / "runs")


def place(run: RunDirectory) -> tuple[int, int, int]:
    step = last_line(run.path / "metrics.jsonl").get("step", 0)
    return len(run.facts["lives"]), newest_step(run.checkpoints), step


def check_lives(question: Space, root: Path, kills: list[Kill]) -> int:
    """Asserts where lives begin; returns how many steps, as far as recorded, were trained twice."""
    interval = question.base.execution.checkpoint_interval_steps
    rungs = question.asha.rungs(question.base.budget.tokens)
    again = 0
    for run in runs(root):
        lives = [life.get("began_at_step") for life in run.facts["lives"]]
        begun = [step for step in lives if step is not None]  # others were killed before that
        assert begun == sorted(begun), f"{run.path} began at {begun}"
        for step in begun:
            assert step % interval == 0 or run.config.batches.tokens(step) in rungs, (
                run.path,
                step,
            )
        for kill in kills:
            count, saved, reached = kill.runs.get(run.path.name, (0, 0, 0))
            later = [step for step in lives[count:] if step is not None]
            if count and later:
                assert later[0] >= saved, f"{run.path} began at {later[0]}, not {saved}: {kill}"
                # The checkpoint of the last interval may have been in the writing.
                assert reached - later[0] <= 2 * interval, f"{run.path} at {reached}: {later}"
                again += max(0, reached - later[0])
    return again


def alive(driver: Driver, name: str) -> bool:
    """Waits for a process of that name, or for the end of the driver."""
    while driver.process.poll() is None:
        if driver.processes(name):
            return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    main()
