"""The report of a population: planted losses, no training."""

import itertools
import math
import re
from pathlib import Path

import pytest

from lmray.accounting import training_flops
from lmray.config import Budget, Evaluation, Optim, Run
from lmray.runs.run_directory import MetricsWriter, RunDirectory
from lmray.sweeps.answers import lineage
from lmray.sweeps.answers.report import answer, write_report
from lmray.sweeps.answers.tables import Sweep, read_sweep
from lmray.sweeps.axes import LogUniform
from lmray.sweeps.ledger import Ledger, read_events, standing
from lmray.sweeps.price import taken
from lmray.sweeps.search import Population
from lmray.sweeps.space import TO_THE_END, Space, Trial
from lmray.sweeps.standing import standings
from lmray.sweeps.sweep_directory import add, claim, read_space

SHARE = 1_048_576
MEMBERS, GENERATIONS = 4, 3
BASE = Run(
    optim=Optim(schedule="constant"),
    budget=Budget(tokens=GENERATIONS * SHARE),
    evaluation=Evaluation(interval_tokens=SHARE // 2),
)
SPACE = Space(
    "planted",
    "",
    BASE,
    {"optim.lr": LogUniform(1e-4, 1e-1)},
    (0,),
    TO_THE_END,
    Population(MEMBERS, GENERATIONS),
)


def loss(trial: Trial) -> float:
    """It rises with the tokens, so that the lowest of all is no answer."""
    return 2 + trial.run.budget.tokens / SHARE + math.log(trial.run.optim.lr / 2e-3) ** 2


def plant(trial: Trial, runs: Path, ledger: Ledger) -> None:
    """A trial as if it had trained a generation of its own in 60 seconds."""
    end = trial.run.budget.tokens
    run = RunDirectory(runs / trial.id)
    run.begin(trial.run, trial.id, {"digest": "d", "path": ""})
    steps = (end - SHARE) // trial.run.batches.unit
    run.note({"began_at_step": steps})
    writer = MetricsWriter(run.path / "metrics.jsonl")
    for tokens in (end - SHARE // 2, end):
        facts = {"step": tokens // trial.run.batches.unit, "tokens": tokens, "loss": loss(trial)}
        writer({"kind": "validation", "scope": "prefix", **facts, "seconds": 30.0})
    writer.close()
    ledger.append("started", trial.id, name=trial.name, changes=trial.changes)
    if loss(trial) > 12:
        nothing = dict.fromkeys(("loss", "bits_per_byte", "perplexity"))
        ledger.append("diverged", trial.id, tokens=end - SHARE // 2, seconds=9.0, **nothing)
    else:
        measured = {"bits_per_byte": 1.5, "perplexity": 20.0, "seconds": 60.0}
        ledger.append("done", trial.id, tokens=end, loss=loss(trial), **measured)


@pytest.fixture
def swept(tmp_path: Path) -> tuple[Path, Path]:
    """A finished sweep's directory and the folder of runs."""
    directory, runs = tmp_path / "sweeps" / "planted", tmp_path / "runs"
    claim(directory, SPACE, "d")
    ledger = Ledger(directory / "ledger.jsonl")
    while True:
        space, events = read_space(directory)[0], read_events(directory / "ledger.jsonl")
        for trial in [each for each in space.trials("d") if each.id not in standing(events)]:
            plant(trial, runs, ledger)
        found = space.next("d", read_events(directory / "ledger.jsonl"))
        if found is None:
            return directory, runs
        add(directory, found, by="search", after=len(space.added))


@pytest.fixture
def sweep(swept: tuple[Path, Path]) -> Sweep:
    return read_sweep(*swept)


def test_the_best_is_of_the_last_generation_though_an_earlier_one_has_a_lower_loss(sweep: Sweep):
    assert sweep.best is not None
    last = [row for row in sweep.rows if row.trial.run.budget.tokens == GENERATIONS * SHARE]
    assert sweep.best.loss == min(row.loss for row in last)
    assert sweep.best.loss > min(row.loss for row in sweep.rows)
    assert len(sweep.compared.rows) == len(last) == MEMBERS
    assert f"{sweep.best.loss:.4f} nats/token" in answer(sweep)
    assert "at the edge" not in answer(sweep)


def test_the_ancestry_is_the_chain_of_parents(sweep: Sweep):
    chain = lineage.ancestry(sweep)
    assert len(chain) == GENERATIONS
    assert chain[-1] is sweep.best
    parents = [row.trial.run.begins_from for row in chain]
    assert parents == ["none", *(row.trial.id for row in chain[:-1])]
    header, rows = lineage.ancestors(sweep)
    assert [row[header.index("run")] for row in rows] == [row.trial.id for row in chain]
    told = [float(row[header.index("lr")]) for row in rows]
    assert told == pytest.approx([row.trial.run.optim.lr for row in chain], rel=1e-3)
    began = [row[header.index("began")] for row in rows]
    changed = [a != b for a, b in itertools.pairwise(told)]
    assert began == ["anew", *("took over" if c else "went on" for c in changed)]
    assert rows[-1][header.index("rank")] == "1 of 4"


def test_the_generations_table_counts_who_took_over_and_who_diverged(sweep: Sweep):
    header, rows = lineage.by_generation(sweep)
    assert [row[:2] for row in rows] == [[str(g + 1), f"{(g + 1) * SHARE:,}"] for g in range(3)]
    for row, members in zip(rows, lineage.generations(sweep), strict=True):
        cells = dict(zip(header, row, strict=True))
        done = [each.loss for each in members if each.status == "done"]
        assert cells["members"] == "4"
        assert cells["not done"] == str(4 - len(done))
        assert (cells["best loss"], cells["worst"]) == (f"{min(done):.4f}", f"{max(done):.4f}")
    dead = sum(each.status == "diverged" for each in lineage.generations(sweep)[0])
    assert dead > 0, "the landscape has a cliff for the test's sake"
    assert [row[header.index("took over")] for row in rows][:2] == ["0", str(max(1, dead))]


def test_each_generations_tokens_are_counted_once(sweep: Sweep, swept: tuple[Path, Path]):
    dead = [row for row in sweep.rows if row.status == "diverged"]
    trained = MEMBERS * GENERATIONS * SHARE - len(dead) * SHARE // 2
    assert sweep.trained_tokens == trained
    assert sweep.budget_tokens == MEMBERS * GENERATIONS * SHARE
    took = taken(sweep, swept[1])
    assert took["tokens"] == trained
    assert took["flops"] == pytest.approx(training_flops(BASE.model, trained), rel=1e-6)


def test_the_time_to_its_end_is_that_of_a_members_own_tokens(swept: tuple[Path, Path]):
    directory, runs = swept
    ledger = directory / "ledger.jsonl"
    *before, _ = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(before))  # the last of all has not ended
    (running,) = [each for each in standings(directory, runs) if each.status == "running"]
    path = runs / running.trial.id / "metrics.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])  # after half its generation
    (running,) = [each for each in standings(directory, runs) if each.status == "running"]
    assert running.tokens == GENERATIONS * SHARE - SHARE // 2
    assert running.eta_s == pytest.approx(30.0)


def test_the_report_has_the_lineage_and_its_picture(sweep: Sweep, swept: tuple[Path, Path]):
    report = write_report(sweep, swept[1])
    text, page = report.read_text(), report.with_suffix(".html").read_text()
    assert "## Lineage of the best" in text
    assert "<h2>Lineage of the best</h2>" in page
    assert re.findall(r"\]\((.*?\.png)\)", text) == ["population.png"]
    assert (report.parent / "population.png").read_bytes()[:4] == b"\x89PNG"
    assert "12 trials of one of 3 generations to 3,145,728 training tokens" in text
    for row in lineage.ancestry(sweep):
        assert row.trial.id in text
    rates = [f"{row.trial.run.optim.lr:.4g}" for row in lineage.ancestry(sweep)]
    assert f"lineage of 3 generations optim.lr was {', '.join(dict.fromkeys(rates))}." in text


def test_an_unfinished_population_has_a_report_too(swept: tuple[Path, Path]):
    directory, runs = swept
    ledger = directory / "ledger.jsonl"
    whole = ledger.read_bytes().splitlines(keepends=True)
    for cut in (0, 1, 5, len(whole) - 3):
        ledger.write_bytes(b"".join(whole[:cut]))
        found = read_sweep(directory, runs)
        assert write_report(found, runs).exists()
        if found.best is not None:
            assert lineage.ancestry(found)[-1] is found.best
