"""What a sweep costs beside its training: wall time over the trials' own seconds.

    python scripts/bench_sweep.py --tokens lmray-out/tokens/ts2k

Learning rates for the tiny preset, each on one thread, as many at a time as there are cores, none
stopped early. A trial's own seconds are those of its training loop, evaluations and checkpoints
included; their sum over the number at a time is what a sweep without any cost would take. Starting
Ray is told apart, and counted in the second ratio.
"""

import argparse
import tempfile
import time
from pathlib import Path

from lmray import presets
from lmray.config import override
from lmray.dataset import open_splits
from lmray.distributed.cluster import ray_session
from lmray.distributed.tune import run_sweep
from lmray.machine import available_cores
from lmray.runs.run_directory import RunDirectory
from lmray.sweeps.ledger import read_events
from lmray.sweeps.space import TO_THE_END, Space
from lmray.sweeps.starts import starts
from lmray.sweeps.sweep_directory import claim


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", type=Path, required=True, help="dataset of 2,048 ids")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--budget", type=int, default=393_216, help="training tokens of a trial")
    arguments = parser.parse_args()
    space = question(arguments.tokens.resolve(), arguments.trials, arguments.budget)
    splits = open_splits(space.base.data.tokens)
    root = Path(tempfile.mkdtemp(prefix="lmray-bench-"))
    directory, runs = root / "sweeps" / space.name, root / "runs"
    claim(directory, space, splits.digest)
    begun = time.perf_counter()
    with ray_session():
        started = time.perf_counter()
        run_sweep(space, splits, directory, runs)
        ended = time.perf_counter()
    trials = [RunDirectory(runs / trial.id) for trial in space.trials(splits.digest)]
    assert all(trial.status == "done" for trial in trials), f"not all are done: {root}"
    seconds = [trial.facts["seconds"] for trial in trials]
    least = sum(seconds) / available_cores()
    events = read_events(directory / "ledger.jsonl")
    times = [event.facts["time"] for event in events]
    waited = starts(events, runs)
    assert waited, f"no trial says when it took its first step: {root}"
    print(
        f"{len(trials)} trials of {min(seconds):.0f} to {max(seconds):.0f} s, {available_cores()} "
        f"at a time: {ended - started:.1f} s for {least:.1f} s of training, ratio "
        f"{(ended - started) / least:.3f}; with Ray's start ({started - begun:.1f} s) "
        f"{(ended - begun) / least:.3f}; ledger {times[-1] - times[0]:.1f} s; "
        f"{waited.sentence()}; {root}"
    )


def question(tokens: Path, trials: int, budget: int) -> Space:
    base = override(
        presets.tiny(),
        {
            "data.tokens": str(tokens),
            "budget.tokens": budget,
            "evaluation.interval_tokens": budget // 8,
            "execution.threads": 1,
            "execution.device": "cpu",
        },
    )
    rates = [1e-3 * 10 ** (number / trials) for number in range(trials)]
    return Space("overhead", "", base, {"optim.lr": rates}, (0,), TO_THE_END)


if __name__ == "__main__":
    main()
