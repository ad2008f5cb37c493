import csv
import math
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmray.accounting import num_parameters
from lmray.config import Budget, Data, Evaluation, Model, Run, Tracking, override
from lmray.runs.run_directory import MetricsWriter, RunDirectory
from lmray.sweeps.answers.comparison import costs
from lmray.sweeps.answers.plots import figure
from lmray.sweeps.answers.plots_curves import colours
from lmray.sweeps.answers.report import answer, write_report
from lmray.sweeps.answers.tables import read_sweep, summaries
from lmray.sweeps.axes import Variants
from lmray.sweeps.ledger import Ledger
from lmray.sweeps.space import TO_THE_END, Asha, Space
from lmray.sweeps.sweep_directory import claim

BASE = Run(
    model=Model(context_length=64),
    data=Data(batch_size=125),
    budget=Budget(tokens=10_000_000),
    evaluation=Evaluation(interval_tokens=1_000_000),
)
RATES = [1e-4, 1e-3, 1e-2, 1e-1]


def planted(folder: Path, losses: dict[tuple[float, int], float | None]) -> tuple[Path, Path]:
    """A finished sweep: 1e-4 is stopped, 1e-1 diverges, the others end with `losses`."""
    seeds = tuple(sorted({seed for _, seed in losses}))
    space = Space("planted", "A hypothesis.", BASE, {"optim.lr": RATES}, seeds, Asha(1_000_000))
    directory, runs = folder / "sweeps" / "planted", folder / "runs"
    claim(directory, space, "digest")
    ledger = Ledger(directory / "ledger.jsonl")
    for trial in space.trials("digest"):
        rate, seed = trial.changes["optim.lr"], trial.changes["seed"]
        run = RunDirectory(runs / trial.id)
        run.begin(trial.run, trial.id, {"digest": "digest", "path": ""})
        writer = MetricsWriter(run.path / "metrics.jsonl")
        for tokens, loss in ((0, 9.2), (1_000_000, 5.0), (2_000_000, 4.0)):
            facts = {"step": tokens // 100, "tokens": tokens, "loss": loss, "bits_per_byte": 1.0}
            writer({"kind": "validation", "scope": "prefix", **facts})
        writer.close()
        ledger.append("started", trial.id, name=trial.name, changes=trial.changes)
        measured = {"bits_per_byte": 1.5, "perplexity": 20.0, "seconds": 12.5}
        if rate == 1e-4:
            where = {"rung": 1_000_000, "tokens": 1_000_000}
            ledger.append("stopped", trial.id, loss=5.0, **where, **measured)
        elif rate == 1e-1:
            nothing = dict.fromkeys(("loss", "bits_per_byte", "perplexity"))
            ledger.append("diverged", trial.id, tokens=50_000, seconds=1.0, **nothing)
        else:
            ledger.append("done", trial.id, tokens=10_000_000, loss=losses[rate, seed], **measured)
    return directory, runs


ONE_SEED: dict[tuple[float, int], float | None] = {(1e-3, 0): 2.5, (1e-2, 0): 2.25}


def test_a_trial_that_a_ledger_calls_done_without_a_finite_loss_is_shown_as_diverged(
    tmp_path: Path,
):
    directory, runs = planted(tmp_path, {(1e-3, 0): None, (1e-2, 0): 2.25})
    sweep = read_sweep(directory, runs)
    assert [row.status for row in sweep.rows] == ["stopped", "diverged", "done", "diverged"]
    assert "diverged" in write_report(sweep, runs).read_text()


def test_a_diverged_trial_is_drawn(tmp_path: Path):
    directory, runs = planted(tmp_path, ONE_SEED)
    folder = write_report(read_sweep(directory, runs), runs).parent
    # matplotlib says in a comment what letters it draws.
    assert "<!-- lr=0.1 seed=0  (diverged) -->" in (folder / "curves.svg").read_text()


def test_a_picture_that_is_cut_off_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def dies(figure, target, **named):
        with Path(target).open("wb") if isinstance(target, Path) else target as file:
            file.write(b"half")
        raise KeyboardInterrupt

    (tmp_path / "loss.png").write_bytes(b"whole")
    monkeypatch.setattr(Figure, "savefig", dies)
    with pytest.raises(KeyboardInterrupt), figure(tmp_path / "loss.png", (2, 2)):
        pass
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("loss.png", b"whole")]


def test_every_number_of_the_table_is_the_ledgers(tmp_path: Path):
    directory, runs = planted(tmp_path, ONE_SEED)
    report = write_report(read_sweep(directory, runs), runs)
    rows = list(csv.DictReader((report.parent / "trials.csv").open()))
    assert [float(row["lr"]) for row in rows] == RATES
    assert [row["status"] for row in rows] == ["stopped", "done", "done", "diverged"]
    assert [row["loss"] for row in rows] == ["5.0", "2.5", "2.25", ""]
    assert [row["tokens"] for row in rows] == ["1000000", "10000000", "10000000", "50000"]
    text = report.read_text()
    assert "| 0.01 | 0 | done * | 2.2500 | 1.5000 | 20.00 | 10,000,000 | 12.5 |" in text
    assert "A hypothesis." in text
    trained = 1_000_000 + 2 * 10_000_000 + 50_000
    assert f"trained {trained:,} of {4 * 10_000_000:,} tokens" in text
    for picture in re.findall(r"\]\((.*?\.png)\)", text):
        assert (report.parent / picture).read_bytes()[:4] == b"\x89PNG"
        assert (report.parent / picture).with_suffix(".svg").exists()


def test_a_curve_ends_where_the_ledger_says_the_trial_did(tmp_path: Path):
    sweep = read_sweep(*planted(tmp_path, ONE_SEED))
    by_rate = {row.trial.changes["optim.lr"]: row.curve for row in sweep.rows}
    assert [r["tokens"] for r in by_rate[1e-4]] == [0, 1_000_000]
    assert [r["tokens"] for r in by_rate[1e-2]] == [0, 1_000_000, 2_000_000]


def test_the_answer_says_whether_the_best_is_at_an_edge(tmp_path: Path):
    sweep = read_sweep(*planted(tmp_path, ONE_SEED))
    assert "optim.lr = 0.01" in answer(sweep)
    assert "in the interior" in answer(sweep)
    assert "One seed" in answer(sweep)


def test_the_answer_tells_the_interval_of_the_best_where_its_run_has_one(tmp_path: Path):
    directory, runs = planted(tmp_path, ONE_SEED)
    assert "95 %" not in answer(read_sweep(directory, runs))
    for row in read_sweep(directory, runs).rows:
        whole = {"kind": "validation", "scope": "all", "step": 99, "tokens": 9_994_240}
        loss = row.measured.get("loss", 9.0)
        writer = MetricsWriter(runs / row.trial.id / "metrics.jsonl")
        writer({**whole, "loss": loss, "loss_low": loss - 0.125, "loss_high": loss + 0.125})
        writer.close()
    sweep = read_sweep(directory, runs)
    assert "its loss would be 2.1250 to 2.3750 (95 % bootstrap interval" in answer(sweep)
    assert [("loss_low" in row.measured) for row in sweep.rows] == [False, True, True, False]


def test_seeds_are_summed_up_by_mean_spread_and_count(tmp_path: Path):
    losses = {(1e-3, s): 2.5 + s / 10 for s in range(3)} | {(1e-2, s): 2.0 for s in range(3)}
    directory, runs = planted(tmp_path, losses)
    sweep = read_sweep(directory, runs)
    found = {group.values[0]: group.loss for group in summaries(sweep)}
    assert found[1e-3].mean == pytest.approx(2.6)
    assert found[1e-3].spread == pytest.approx(0.1)
    assert found[1e-2].spread == 0
    assert math.isnan(found[1e-4].mean)
    text = write_report(sweep, runs).read_text()
    # 4.303 is Student's point of two degrees of freedom; the difference is of pairs of seeds.
    margin = 4.3027 * 0.1 / 3**0.5
    interval = f"{2.6 - margin:.4f} to {2.6 + margin:.4f}"
    over = f"+0.6000 ± {margin:.4f} (n = 3)"
    assert f"| 0.001 | 2.6000 | 0.1000 | {interval} | 3 of 3 | {over} |" in text
    assert "| 0.0001 | - | - | - | 0 of 3 | - |" in text
    assert f"Against lr=0.001: -0.6000 ± {margin:.4f} (n = 3), outside the noise" in text


def test_the_picture_notes_the_mean_that_the_answer_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And not the luckiest seed."""
    notes: list[str] = []
    true = Axes.annotate

    def noted(axes: Axes, text: str, *given: Any, **more: Any) -> Any:
        notes.append(text)
        return true(axes, text, *given, **more)

    monkeypatch.setattr(Axes, "annotate", noted)
    losses = {(1e-3, s): 2.5 + s / 10 for s in range(3)} | {(1e-2, s): 2.9 for s in range(3)}
    directory, runs = planted(tmp_path, losses)
    sweep = read_sweep(directory, runs)
    write_report(sweep, runs)
    assert "a validation loss of 2.6000 nats/token" in answer(sweep)
    assert "best 0.001: 2.600" in notes


def test_the_html_report_needs_no_other_file(tmp_path: Path):
    directory, runs = planted(tmp_path, ONE_SEED)
    report = write_report(read_sweep(directory, runs), runs).with_suffix(".html")
    text = report.read_text()
    assert "A hypothesis." in text
    assert "<td>2.2500</td>" in text
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)


def test_what_is_not_tried_is_in_the_report_with_its_reason(tmp_path: Path):
    space = Space(
        "big", "<b>", BASE, {"data.batch_size": [1, 4096]}, (0,), Asha(1_000_000), memory_gb=16
    )
    claim(tmp_path / "big", space, "digest")
    sweep = read_sweep(tmp_path / "big", tmp_path / "runs")
    assert [row.values for row in sweep.rows] == [(1,)]
    text = write_report(sweep, tmp_path / "runs").read_text()
    assert re.search(r"- batch_size=4096: takes [\d.]+ GB by accounting and there are 16", text)
    html = (tmp_path / "big" / "report" / "report.html").read_text()
    assert "batch_size=4096: takes" in html
    assert "&lt;b&gt;" in html


def test_a_baseline_is_what_the_others_are_set_against_and_its_switches_are_found(tmp_path: Path):
    variants = Variants({"baseline": {}, "tied": {"model.tied_embeddings": True}})
    axes = {"variant": variants}
    asha = Asha(1_000_000)
    space = Space("ab", "", BASE, axes, (0, 1), asha, baseline={"variant": "baseline"})
    directory, runs = tmp_path / "ab", tmp_path / "runs"
    claim(directory, space, "digest")
    ledger = Ledger(directory / "ledger.jsonl")
    for trial in space.trials("digest"):
        loss = 3.0 + trial.changes["seed"] - 0.25 * (trial.changes["variant"] == "tied")
        facts = {"tokens": 1, "bits_per_byte": 1.0, "perplexity": 1.0, "seconds": 1.0}
        ledger.append("done", trial.id, loss=loss, **facts)
    text = write_report(read_sweep(directory, runs), runs).read_text()
    assert "| tied | 3.2500 |" in text
    assert "| -0.2500 ± 0.0000 (n = 2) |" in text
    assert "| baseline | nothing |" in text
    assert "| tied | model.tied_embeddings: False -> True |" in text
    parameters = num_parameters(BASE.model)
    less = parameters - BASE.model.vocab_size * BASE.model.d_model
    assert f"| baseline | {parameters:,} |" in text
    assert f"| tied | {less:,} |" in text
    assert (directory / "report" / "differences.png").exists()
    assert (directory / "report" / "seeds.png").exists()


def test_variants_have_colours_of_their_own_and_their_baseline_is_black(tmp_path: Path):
    names = ["tied", "baseline", *(f"other {k}" for k in range(18))]
    variants = {name: {"optim.lr": 2e-3 * (k + 1)} for k, name in enumerate(names)}
    axes = {"variant": Variants(variants)}
    compared = Space("ab", "", BASE, axes, (0, 1), TO_THE_END, baseline={"variant": "baseline"})
    claim(tmp_path / "ab", compared, "digest")
    sweep = read_sweep(tmp_path / "ab", tmp_path / "runs")
    shown = colours(sweep)
    assert list(shown) == [(name,) for name in names]
    assert [values for values, colour in shown.items() if colour == "#000000"] == [("baseline",)]
    assert len(set(shown.values())) == len(names)
    ordered = read_sweep(planted(tmp_path, ONE_SEED)[0], tmp_path / "runs")
    assert len(set(colours(ordered).values())) == len(RATES)
    assert "#000000" not in colours(ordered).values()


def test_an_ffn_of_another_kind_is_set_against_the_swiglu_of_the_base(tmp_path: Path):
    changes = {
        "matched": {"model.ffn": "silu"},
        "narrow": {"model.ffn": "gelu", "model.d_ff": 1344},
    }
    tied = {"tied": {"model.tied_embeddings": True}}
    for name, variants in (("ffn", tied | changes), ("none", {"base": {}} | tied)):
        axes = {"variant": Variants(variants, switches=2)}
        space = Space(name, "", BASE, axes, (0,), Asha(1_000_000))
        claim(tmp_path / name, space, "digest")
        sweep = read_sweep(tmp_path / name, tmp_path / "runs")
        header, rows = costs(sweep, tmp_path / "runs")
        assert all(len(row) == len(header) for row in rows)
        if name == "none":
            assert header[-1] == "peak memory (GB)"
            continue
        assert header[-1] == "FFN parameters over SwiGLU"
        # A third of four layers' three matrices of 512 x 1344.
        told = {"tied": "-", "matched": "+0 (+0.0 %)", "narrow": "-2,752,512 (-33.3 %)"}
        assert {row[0]: row[-1] for row in rows} == told
        assert "+0 (+0.0 %)" in write_report(sweep, tmp_path / "runs").read_text()


def test_an_ffn_is_set_against_a_swiglu_of_the_width_that_the_base_says(tmp_path: Path):
    base = override(BASE, {"model.d_ff": 1408})
    space = Space("w", "", base, {"model.ffn": ["swiglu", "silu"]}, (0,), Asha(1_000_000))
    claim(tmp_path / "w", space, "digest")
    _, rows = costs(read_sweep(tmp_path / "w", tmp_path / "runs"), tmp_path / "runs")
    assert [row[-1] for row in rows] == ["-", "-2,883,584 (-33.3 %)"]


def test_what_costs_the_same_but_for_its_speed_is_tabled_once_that_is_measured(tmp_path: Path):
    axes, asha = {"optim.name": ["adamw", "muon"]}, Asha(1_000_000)
    space = Space("speeds", "", BASE, axes, (0,), asha)
    directory, runs = tmp_path / "speeds", tmp_path / "runs"
    claim(directory, space, "digest")
    assert costs(read_sweep(directory, runs), runs)[1] == [], "all the same"
    speeds = {"adamw": 1000, "muon": 750}
    for trial in space.trials("digest"):
        RunDirectory(runs / trial.id).begin(trial.run, trial.id, {"digest": "digest", "path": ""})
        writer = MetricsWriter(runs / trial.id / "metrics.jsonl")
        writer({"kind": "train", "step": 1, "tokens_per_s": speeds[trial.run.optim.name]})
        writer.close()
    header, rows = costs(read_sweep(directory, runs), runs)
    assert header[0] == "name"
    found = {row[0]: row[header.index("tokens/s")] for row in rows}
    assert found == {"adamw": "1,000", "muon": "750"}


def test_a_sweep_that_has_not_begun_has_a_report_too(tmp_path: Path):
    tracked = BASE.model_copy(update={"tracking": Tracking()})
    space = Space("new", "", tracked, {"optim.lr": [1e-3]}, (0,), Asha(1_000_000))
    claim(tmp_path / "new", space, "digest")
    sweep = read_sweep(tmp_path / "new", tmp_path / "runs")
    assert [row.status for row in sweep.rows] == ["waiting"]
    assert "No trial is done" in write_report(sweep, tmp_path / "runs").read_text()
