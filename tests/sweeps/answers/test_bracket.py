"""Reports of sweeps that were played along an axis, their losses planted."""

import math
import re
from pathlib import Path

import pytest

from lmray.runs.run_directory import MetricsWriter, RunDirectory
from lmray.storage import write_bytes
from lmray.sweeps.answers.bracket import traced
from lmray.sweeps.answers.report import answer, write_report
from lmray.sweeps.answers.tables import Sweep, read_sweep
from lmray.sweeps.axes import Axes
from lmray.sweeps.ledger import read_events
from lmray.sweeps.search import Bisect, Bracket
from lmray.sweeps.space import TO_THE_END, Asha, Space
from tests.sweeps.search.landscape import BASE, Loss, Sweeping, bowl


def reported(folder: Path, space: Space, loss: Loss) -> tuple[str, str, Path]:
    """The report and the answer of a sweep that has been played; its runs have their curves."""
    directory, runs = folder / "sweeps" / space.name, folder / "runs"
    played = Sweeping(space, directory, loss).play()
    budget = space.base.budget.tokens
    for trial in played.trials("d"):
        run = RunDirectory(runs / trial.id)
        run.begin(trial.run, trial.id, {"digest": "d", "path": ""})
        writer = MetricsWriter(run.path / "metrics.jsonl")
        for tokens in space.asha.rungs(budget):
            where = {"kind": "validation", "scope": "prefix", "step": 1, "tokens": tokens}
            writer({**where, "loss": loss(trial, tokens / budget), "bits_per_byte": 1.0})
        writer.close()
    sweep = read(directory, runs)
    return write_report(sweep, runs).read_text(), answer(sweep), directory


def read(directory: Path, runs: Path) -> Sweep:
    """The sweep, with what the planted ends do not say."""
    sweep = read_sweep(directory, runs)
    for row in sweep.rows:
        row.measured.setdefault("bits_per_byte", 1.0)
    return sweep


def section(text: str, heading: str) -> list[list[str]]:
    """The cells of the tables in a section of a report."""
    body = text.partition(f"## {heading}")[2].partition("\n## ")[0]
    lines = [line for line in body.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_report_tells_the_bracket_and_the_fitted_optimum_at_each_level(tmp_path: Path):
    space = Space(
        "rates",
        "",
        BASE,
        {"optim.lr": [1e-3, 3e-3, 9e-3]},
        (0, 1),
        Asha(1_048_576, 4, "promote"),
        Bracket("optim.lr", ratio=1.5),
    )
    text, said, directory = reported(tmp_path, space, bowl(4e-3, 0.06, noise=0.01))
    found = section(text, "Where the optimum lies")
    bracket = found[2]
    assert bracket[-1] == "closed"
    below, best, above = float(bracket[2]), float(bracket[1]), float(bracket[3])
    assert below < best < above
    assert float(bracket[4]) > 0.06
    rows = [row for row in found if row[0].endswith("tokens")]
    assert rows[0][0] == "1,048,576 tokens"
    low, high = map(float, rows[0][2].split(" to "))
    assert low <= 4e-3 <= high
    assert high / low < 1.1
    assert rows[0][4] == "-"
    assert re.search(r"Fitted optimum at [\d,]+ tokens: optim.lr = 0.00\d+, 95 % interval", said)
    html = (directory / "report" / "report.html").read_text()
    assert "Where the optimum lies" in html
    assert (directory / "report" / "loss-against-lr.png").exists()


def test_an_interval_that_is_not_known_is_said_to_be_unknown(tmp_path: Path):
    axes: Axes = {"optim.lr": [1e-3, 1e-2]}
    search = Bracket("optim.lr", ratio=5, to_divergence=False)
    space = Space("few", "", BASE, axes, (0,), TO_THE_END, search)
    text, said, _ = reported(tmp_path, space, bowl(4e-3, 1.0))
    row = section(text, "Where the optimum lies")[-1]
    assert row[:3] == ["the end", "unknown", "unknown"]
    assert "No interval of the fitted optimum is known" in said


def test_each_line_has_its_optimum_and_all_are_in_one_picture(tmp_path: Path):
    axes: Axes = {"data.batch_size": [8, 32], "optim.lr": [1e-3, 2e-3, 4e-3]}
    search = Bracket("optim.lr", ratio=1.5, trials=9, to_divergence=False)
    space = Space("batches", "", BASE, axes, (0, 1, 2), TO_THE_END, search)
    best = {8: 1.5e-3, 32: 6e-3}

    def loss(trial, share):
        return bowl(best[trial.run.data.batch_size], 1.0, noise=0.01)(trial, share)

    text, _, directory = reported(tmp_path, space, loss)
    found = section(text, "Where the optimum lies")
    fitted = {row[0]: row for row in found if row[1] == "the end"}
    for batch, rate in best.items():
        low, high = map(float, fitted[f"batch_size={batch}"][3].split(" to "))
        assert low <= rate <= high
    assert (directory / "report" / "lines.png").read_bytes()[:4] == b"\x89PNG"
    sweep = read_sweep(directory, tmp_path / "runs")
    events = read_events(directory / "ledger.jsonl")
    assert [each.name for each in traced(sweep, events)] == ["batch_size=8", "batch_size=32"]


def test_the_limit_of_values_is_told_when_it_is_reached(tmp_path: Path):
    search = Bracket("optim.lr", trials=4)
    space = Space("few", "", BASE, {"optim.lr": [1e-4, 1e-3]}, (0,), TO_THE_END, search)
    text, _, _ = reported(tmp_path, space, bowl(0.3, 1.0))
    assert "not closed within its limit of 4 values" in text
    space = Space("top", "", BASE, {"optim.lr": [1e-3, 0.1]}, (0,), TO_THE_END, Bracket("optim.lr"))
    text, _, _ = reported(tmp_path, space, bowl(0.05, 1.0))
    assert "closed, none up to 1 diverged" in text


def test_a_bisection_tells_each_seeds_edge_and_how_far_below_it_the_best_is(tmp_path: Path):
    edges = (0.02, 0.03, 0.04)

    def loss(trial, share):
        return bowl(0.005, edges[trial.run.seed])(trial, share)

    axes: Axes = {"optim.lr": [1e-3, 5e-3, 2.5e-2]}
    space = Space("edge", "", BASE, axes, (0, 1, 2), TO_THE_END, Bisect("optim.lr", 1.1))
    text, said, directory = reported(tmp_path, space, loss)
    rows = section(text, "The edge of stability")[2:]
    assert [row[0] for row in rows] == ["0", "1", "2", "mean ± sd"]
    ratios = []
    for row, edge in zip(rows[:3], edges, strict=True):
        best, stable, diverged, ratio = map(float, row[1:])
        assert best == 5e-3
        assert stable <= edge < diverged <= 1.11 * stable
        assert ratio == pytest.approx(best / stable, rel=5e-3)
        ratios.append(ratio)
    mean = sum(ratios) / 3
    spread = math.sqrt(sum((ratio - mean) ** 2 for ratio in ratios) / 2)
    assert rows[-1][4] == f"{mean:.3g} ± {spread:.2g}"
    assert f"the best is {mean:.3g} of the edge (sd {spread:.2g})" in said
    assert not (directory / "report" / "sharpness.png").exists()


def test_an_edge_that_some_seed_has_not_met_is_not_known(tmp_path: Path):
    def loss(trial, share):
        return bowl(0.005, (0.02, 9.0)[trial.run.seed])(trial, share)

    axes: Axes = {"optim.lr": [1e-2, 1e-1]}
    space = Space("edge", "", BASE, axes, (0, 1), TO_THE_END, Bisect("optim.lr", 1.1))
    text, said, _ = reported(tmp_path, space, loss)
    rows = section(text, "The edge of stability")[2:]
    assert rows[1][2:] == ["1", "-", "-"]
    assert rows[2][3:] == ["-", "-"]
    assert "is not known with every seed" in said


def test_sharpness_that_was_measured_is_drawn_beside_its_limit(tmp_path: Path):
    space = Space(
        "edge", "", BASE, {"optim.lr": [1e-3, 0.1]}, (0,), TO_THE_END, Bisect("optim.lr", 3)
    )
    _, _, directory = reported(tmp_path, space, bowl(0.005, 0.05))
    runs = tmp_path / "runs"
    sweep = read(directory, runs)
    record = '{"step":9,"tokens":900,"lr":0.1,"sharpness":2.0,"preconditioned":99.0,"limit":380.0}'
    write_bytes(runs / sweep.rows[0].trial.id / "sharpness.jsonl", record.encode() + b"\n")
    text = write_report(sweep, runs).read_text()
    assert "sharpness.png" in text
    assert (directory / "report" / "sharpness.png").read_bytes()[:4] == b"\x89PNG"
