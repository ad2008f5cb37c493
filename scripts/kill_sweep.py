"""Kills a sweep many times, and shows that its ledger is that of one that nobody killed.

    python scripts/kill_sweep.py --kills 20

A sweep of eight trials by promotion on one place, so that only one order of completion is possible,
is run to its end once. Then it is run again elsewhere and killed with SIGKILL at random moments:
the driver, the worker that trains, or the raylet, by lot; whenever the driver is gone, the same
command goes on. Decisions and losses must be those of the undisturbed sweep, line for line.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lmray.config import Budget, Evaluation, Execution, Model
from lmray.runs.run_directory import list_runs
from lmray.sweeps.decisions.asha import Asha
from lmray.sweeps.ledger import read_events
from lmray.sweeps.space import Space
from tests.distributed.killing import Driver, decisions
from tests.small import small_run, write_dataset

RATES = [1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 2e-2, 2e-3, 5e-3]
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
    for name in ("straight", "killed"):
        (folder / name).mkdir()
    Driver(question, folder / "straight").wait(seconds=3600)
    kills = disturb(question, folder / "killed", arguments)
    ledgers = [
        folder / name / "sweeps" / "killed" / "ledger.jsonl" for name in ("straight", "killed")
    ]
    assert decisions(ledgers[1]) == decisions(ledgers[0]), f"the ledgers differ: {folder}"
    lives = sum(len(run.facts["lives"]) for run in list_runs(folder / "killed" / "runs"))
    events = read_events(ledgers[1])
    print(f"{kills}; {len(events)} events, {lives} lives of runs; decisions are equal: {folder}")


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


def disturb(question: Space, root: Path, arguments: argparse.Namespace) -> dict[str, int]:
    """Kills what is drawn until that is enough or the sweep is done; returns how many of each."""
    draw, done = random.Random(arguments.seed), dict.fromkeys(VICTIMS, 0)
    driver = Driver(question, root)
    while sum(done.values()) < arguments.kills and driver.process.poll() != 0:
        if driver.process.poll() is not None:
            driver = Driver(question, root)
        if not alive(driver, "ray::ImplicitFunc.train"):
            continue
        moment = time.monotonic() + draw.uniform(0, arguments.longest)
        while time.monotonic() < moment and driver.process.poll() is None:
            time.sleep(0.05)
        victim = draw.choice(list(VICTIMS))
        for pid in driver.processes(VICTIMS[victim])[:1]:
            os.kill(pid, signal.SIGKILL)
            done[victim] += 1
            print(f"killed the {victim}, {sum(done.values())} of {arguments.kills}", flush=True)
            if victim != "worker":
                driver.process.wait(timeout=300)
    if driver.process.poll() is None:
        driver.wait(seconds=3600)
    while driver.process.poll() != 0:
        driver = Driver(question, root)
        driver.process.wait(timeout=3600)
    return done


def alive(driver: Driver, name: str) -> bool:
    """Waits for a process of that name, or for the end of the driver."""
    while driver.process.poll() is None:
        if driver.processes(name):
            return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    main()
