"""What ASHA loses and saves: a grid of learning rates to the end, then the rule over its curves.

    python scripts/bench_asha.py --tokens lmray-out/tokens/ts2k --runs lmray-out/runs

First the grid: sixteen learning rates from 1e-4 to 1e-1, evenly spaced in the logarithm, each with
every seed, are trained to their end one after another (`--processes` at a time). They are ordinary
runs beneath --runs, by run id, so what is there is not run again, and a sweep of the same space
would find it.

Then, for each mode and each seed of the training, sweeps are replayed: the referee that drives real
sweeps is told the losses that the runs measured, by a machine with two places on which trials take
time in proportion to their tokens, up to a tenth more or less by lot. They start as lmray starts a
grid, or ("by lot") in any order, as a user's list might come. Orders and lots are the sweep's seed.
A decision depends on nothing but these losses and the order in which they arrive, so a replayed
sweep decides as a real one with that order would.

Tokens are those of training; a share is of the grid's. Losses are of the whole validation split.
"""

import argparse
import heapq
import itertools
import multiprocessing
import random
import statistics
import tempfile
from pathlib import Path

from lmray import presets
from lmray.config import Run, override, run_id
from lmray.dataset import open_splits
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from lmray.sweeps.decisions.asha import Asha, Mode
from lmray.sweeps.decisions.referee import Referee
from lmray.sweeps.ledger import Ledger, read_events, standing
from lmray.sweeps.search import Grid
from lmray.sweeps.space import Trial

MODES: tuple[Mode, ...] = ("stop", "promote")
RATES = [float(f"{1e-4 * 10 ** (3 * i / 15):.3g}") for i in range(16)]
PLACES = 2


def main() -> None:
    arguments = _arguments()
    base = override(
        presets.tiny(),
        {
            "data.tokens": str(arguments.tokens.resolve()),
            "budget.tokens": arguments.budget,
            "evaluation.interval_tokens": arguments.grace,
            "evaluation.prefix_tokens": arguments.prefix,
            "execution.threads": 1,
            "execution.device": "cpu",
        },
    )
    digest = open_splits(base.data.tokens).digest
    grids = {seed: grid(base, seed, digest) for seed in arguments.seeds}
    todo = [(trial.run, arguments.runs) for trials in grids.values() for trial in trials]
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        pool.starmap(train, todo, chunksize=1)
    print("| training seed | mode | start | best lr | loss over the grid's best | tokens, % |")
    print("| --- | --- | --- | --- | --- | --- |")
    for seed, trials in grids.items():
        finals = {trial.id: final_loss(arguments.runs, trial) for trial in trials}
        winner = min(trials, key=lambda trial: finals[trial.id])
        best = finals[winner.id]
        lr = winner.changes["optim.lr"]
        print(f"| {seed} | none | - | {lr:g} | 0 (loss {best:.4f}) | 100 |")
        for mode, start in itertools.product(MODES, ("grid", "by lot")):
            asha = Asha(arguments.grace, arguments.eta, mode)
            found = [
                replay(asha, base, trials, arguments.runs, draw, by_lot=start == "by lot")
                for draw in range(arguments.orders)
            ]
            print(row(seed, mode, start, found, finals, best, trials))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--tokens", type=Path, required=True, help="token dataset, vocabulary 2,048"
    )
    parser.add_argument("--runs", type=Path, required=True, help="where the grid's runs are kept")
    parser.add_argument("--budget", type=int, default=1_572_864, help="training tokens of a run")
    parser.add_argument("--grace", type=int, default=98_304, help="tokens of the first rung")
    parser.add_argument("--eta", type=int, default=4, help="one in this many goes on")
    parser.add_argument("--prefix", type=int, default=32_768, help="validation tokens at rungs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the training")
    parser.add_argument("--orders", type=int, default=20, help="sweeps replayed for each mode")
    parser.add_argument("--processes", type=int, default=PLACES, help="runs trained at a time")
    return parser.parse_args()


def grid(base: Run, seed: int, digest: str) -> list[Trial]:
    """A trial for each rate, in the order in which a sweep starts them."""
    changes = [{**each, "seed": seed} for each in Grid().design({"optim.lr": RATES})]
    runs = [(each, override(base, each)) for each in changes]
    return [Trial(run_id(run, digest), each, run) for each, run in runs]


def train(run: Run, runs: Path) -> None:
    directory = execute(run, open_splits(run.data.tokens), runs, report=lambda record: None)
    loss = directory.final_validation().get("loss")
    print(f"lr={run.optim.lr:g} seed={run.seed}: {directory.status}, loss {loss}", flush=True)


def final_loss(runs: Path, trial: Trial) -> float:
    loss = RunDirectory(runs / trial.id).final_validation().get("loss")
    return float("inf") if loss is None else loss


def replay(
    asha: Asha, base: Run, trials: list[Trial], runs: Path, seed: int, *, by_lot: bool
) -> tuple[list[str], int]:
    """A sweep over what the runs measured: who is done, and the tokens all have trained."""
    draw = random.Random(seed)
    order = draw.sample(trials, len(trials)) if by_lot else trials
    pace = {trial.id: draw.uniform(0.9, 1.1) for trial in trials}
    records = {trial.id: _prefix_records(runs, trial) for trial in trials}
    tokens = dict.fromkeys(pace, 0)
    now, queue = 0.0, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ledger.jsonl")
        referee = Referee(asha, base.budget.tokens, Ledger(path), order, places=PLACES)

        def set_out(trial: str) -> None:
            ahead = [level for level in referee.levels if level > tokens[trial]]
            goal = ahead[0] if ahead else base.budget.tokens
            if goal not in records[trial]:  # it diverges on its way there
                goal = RunDirectory(runs / trial).facts["tokens"]
            took = (goal - tokens[trial]) * pace[trial]
            heapq.heappush(queue, (now + took, trial, goal))

        while not referee.finished:
            while referee.jobs:
                set_out(referee.jobs.popleft())
            now, trial, goal = heapq.heappop(queue)
            tokens[trial] = goal
            if goal in referee.levels and goal in records[trial]:
                referee.judge(trial, records[trial][goal])
                if read_verdict(path, trial, goal) == "rung":
                    set_out(trial)
                else:
                    referee.ended(trial, "preempted", {"tokens": goal})
            else:
                directory = RunDirectory(runs / trial)
                loss = directory.final_validation().get("loss")
                referee.ended(trial, directory.status, {"tokens": goal, "loss": loss})
        stands = standing(read_events(path))
    return [trial for trial, kind in stands.items() if kind == "done"], sum(tokens.values())


def read_verdict(path: Path, trial: str, level: int) -> str:
    events = read_events(path)
    return next(e.kind for e in events if e.trial == trial and e.facts.get("rung") == level)


def _prefix_records(runs: Path, trial: Trial) -> dict[int, dict]:
    records = RunDirectory(runs / trial.id).records("validation")
    return {r["tokens"]: r for r in records if r["scope"] == "prefix"}


def row(
    seed: int,
    mode: Mode,
    start: str,
    found: list[tuple[list[str], int]],
    finals: dict[str, float],
    best: float,
    trials: list[Trial],
) -> str:
    gaps, shares, rates = [], [], []
    full = sum(trial.run.training_tokens for trial in trials)
    by_id = {trial.id: trial.changes["optim.lr"] for trial in trials}
    for done, tokens in found:
        winner = min(done, key=finals.__getitem__, default="")
        gaps.append(finals[winner] - best if winner else float("inf"))
        rates.append(f"{by_id[winner]:g}" if winner else "none is done")
        shares.append(100 * tokens / full)
    within = sum(gap <= 0.01 for gap in gaps)
    most = sum(share <= 35 for share in shares)
    shown = " ".join(sorted(set(rates)))
    return (
        f"| {seed} | {mode} | {start} | {shown} | within 0.01 in {within} of {len(found)}, worst "
        f"{max(gaps):.4f} | {min(shares):.0f} to {max(shares):.0f}, mean "
        f"{statistics.mean(shares):.0f}, at most 35 in {most} |"
    )


if __name__ == "__main__":
    main()
