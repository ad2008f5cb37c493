"""Kills hosts of a cluster again and again during a sweep, and shows that nothing of it is lost.

    python scripts/kill_hosts.py FOLDER --kills 10

scripts/local_cluster.sh makes three hosts. From FOLDER's tinystories-{train,valid}.txt a tokenizer
and shards are made, and six learning rates are tried, by `lmray submit`. During the sweep a worker
host, drawn by lot, loses its power at a random moment and gets it back later. One process then does
the same work on this machine. Vocabulary and shards must be the same bytes; curves and last weights
the same bits; every trial must have gone on from its newest checkpoint, and the ledger must have
each of its lives and one end.
"""

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lmray.runs.run_directory import RunDirectory, list_runs
from lmray.storage import last_line, sha256_file
from lmray.sweeps.ledger import read_events
from lmray.training.checkpoint import newest_first, newest_step
from tests.distributed.local_cluster import LocalCluster

WORKERS = (2, 3)
LOG_STEPS, CHECKPOINT_STEPS = 8, 16
SPACE = '''"""Hypothesis: none; hosts are killed."""
from lmray.config import override
from lmray.presets import tiny
from lmray.sweeps.space import TO_THE_END
BASE = override(tiny(), {{
    "model.num_layers": 2, "model.d_model": 64, "data.tokens": "tokens/ts",
    "budget.tokens": {tokens}, "evaluation.interval_tokens": 65_536, "execution.device": "cpu",
    "execution.log_interval_steps": {log}, "execution.checkpoint_interval_steps": {checkpoint}}})
SPACE = {{"optim.lr": [3e-4, 1e-3, 3e-3, 6e-3, 1e-2, 2e-2]}}
SEEDS = [0]
ASHA = TO_THE_END
'''
TIMES = ("seconds", "tokens_per_s", "tflop_per_s", "mfu", "data_wait_s", "peak_memory_bytes")


@dataclass(frozen=True)
class Death:
    """A life of a run that ended with its host."""

    run: str
    life: int
    reached: int
    """The last step in its metrics."""
    checkpoint: int
    """The step of its newest checkpoint, 0 without any."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("texts", type=Path, help="a folder with tinystories-{train,valid}.txt")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=2_097_152, help="that each trial trains")
    parser.add_argument("--longest", type=float, default=20, help="seconds until the next kill")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    # Not in /tmp, of which each host has its own; and Ray's sockets allow no long names.
    folder = Path(tempfile.mkdtemp(prefix="hosts-", dir="/var/tmp"))
    cluster = LocalCluster(folder / "c")
    cluster.script("down")
    try:
        cluster.script("up")
        space = folder / "six_rates.py"
        facts = {"tokens": asked.tokens, "log": LOG_STEPS, "checkpoint": CHECKPOINT_STEPS}
        space.write_text(SPACE.format(**facts))
        roots = folder / "many", folder / "one"
        place = ["submit", "--cluster", cluster.yaml, "--root", roots[0], "--"]
        for command in make_data(asked.texts.resolve(), workers=3):
            cluster.lmray(*place, "lmray", *command)
        sweep = ["sweep", "run", space, "--tokens-per-s", 5000]
        begun = time.monotonic()
        driver = cluster.start(*place, "lmray", *sweep, log=folder / "sweep.log")
        deaths, kills = disturb(cluster, driver, roots[0] / "runs", asked)
        assert driver.wait(timeout=3600) == 0, (folder / "sweep.log").read_text()[-3000:]
        seconds = time.monotonic() - begun
        assert kills == asked.kills, (
            f"the sweep ended after {kills} of {asked.kills} kills; give it more --tokens"
        )
        for command in [*make_data(asked.texts.resolve(), workers=1), sweep]:
            cluster.lmray(*command, "--root", roots[1], seconds=3600)
        check_bytes(*roots)
        lives = check_runs(*roots, deaths)
        check_ledger(roots[0] / "sweeps" / "six_rates" / "ledger.jsonl", lives, kills)
        again = sum(death.reached - death.checkpoint for death in deaths)
        print(
            f"{kills} hosts killed, {len(deaths)} lives of runs ended by it, {sum(lives.values())} "
            f"lives of {len(lives)} runs, {again} steps trained again of "
            f"{len(lives) * asked.tokens // 2048}, {seconds:.0f} s; all is equal: {folder}"
        )
    finally:
        cluster.script("down")


def make_data(texts: Path, workers: int) -> list[list[object]]:
    source = [texts / "tinystories-train.txt", "--valid", texts / "tinystories-valid.txt"]
    where = ["--name", "ts", "--workers", workers]
    return [
        ["tokenizer", "train", *source, "--vocab-size", 2048, *where],
        ["data", "build", *source, "--tokenizer", "ts", *where],
    ]


def disturb(
    cluster: LocalCluster, driver: subprocess.Popen[bytes], runs: Path, asked: argparse.Namespace
) -> tuple[list[Death], int]:
    """Kills what is drawn, until that is enough or the sweep is done; the lives that ended so."""
    draw, deaths, kills = random.Random(asked.seed), [], 0
    while kills < asked.kills:
        await_worker(driver, runs, deaths)
        end = time.monotonic() + draw.uniform(0, asked.longest)
        while time.monotonic() < end and driver.poll() is None:
            time.sleep(0.2)
        if driver.poll() is not None:
            break
        host = draw.choice([host for host in WORKERS if alive(runs, host, deaths)] or WORKERS)
        cluster.script("kill", host)
        kills += 1
        time.sleep(1)
        ended = alive(runs, host, deaths)
        deaths += ended
        print(f"kill {kills}, host {host}: {ended}", flush=True)
        time.sleep(draw.uniform(0, 10))
        cluster.script("start", host)
    return deaths, kills


def await_worker(driver: subprocess.Popen[bytes], runs: Path, deaths: list[Death]) -> None:
    """Waits until a run is trained on a worker host, or the sweep has ended."""
    while driver.poll() is None and not any(alive(runs, host, deaths) for host in WORKERS):
        time.sleep(0.5)


def alive(runs: Path, host: int, deaths: list[Death]) -> list[Death]:
    """The lives of runs on a host, as they would end now."""
    found = []
    for run in list_runs(runs):
        number = len(run.facts["lives"]) - 1
        where = run.facts["lives"][-1]["hardware"]["host"]
        known = any((death.run, death.life) == (run.path.name, number) for death in deaths)
        if run.status == "running" and where.endswith(f"-h{host}") and not known:
            saved = newest_step(run.checkpoints)
            reached = last_line(run.path / "metrics.jsonl").get("step", 0)
            found.append(Death(run.path.name, number, reached, saved))
    return found


def check_bytes(many: Path, one: Path) -> None:
    for made in ("tokenizer/ts/tokenizer.json", "tokens/ts/*/*"):
        names = [path.relative_to(one) for path in one.glob(made) if path.is_file()]
        assert names, made
        for name in names:
            assert sha256_file(many / name) == sha256_file(one / name), name


def check_runs(many: Path, one: Path, deaths: list[Death]) -> Mapping[str, int]:
    """Compares curves and weights, and where lives began; returns the lives of each run."""
    lives = {}
    for straight in list_runs(one / "runs"):
        killed = RunDirectory(many / "runs" / straight.path.name)
        assert killed.status == straight.status == "done"
        for kind in ("train", "validation"):
            assert curve(killed, kind) == curve(straight, kind), killed.path
        last = [newest_first(run.checkpoints)[0] for run in (killed, straight)]
        assert last[0].name == last[1].name
        weights = [sha256_file(path / "model.safetensors") for path in last]
        assert weights[0] == weights[1], killed.path
        lives[straight.path.name] = len(killed.facts["lives"])
        for death in deaths:
            if death.run == straight.path.name:
                # A host may die before the life that it was given has begun.
                later = killed.facts["lives"][death.life + 1 :]
                began = next(life["began_at_step"] for life in later if "began_at_step" in life)
                assert began == death.checkpoint, death
                # One checkpoint may be half written, and its step not yet the newest one's.
                assert death.reached - death.checkpoint < 2 * CHECKPOINT_STEPS, death
    return lives


def curve(run: RunDirectory, kind: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in TIMES} for r in run.records(kind)]


def check_ledger(path: Path, lives: Mapping[str, int], kills: int) -> None:
    events = read_events(path)
    assert {event.trial for event in events} == lives.keys()
    for trial, count in lives.items():
        story = " ".join(event.kind for event in events if event.trial == trial)
        assert re.fullmatch("started (failed started )*done", story), story
        # A host may die after it was given a trial and before it wrote of that.
        assert count <= story.count("started"), (trial, count, story)
    failures = [event for event in events if event.kind == "failed"]
    assert all(event.facts["lost"] for event in failures), failures
    assert len(failures) <= kills, failures


if __name__ == "__main__":
    main()
