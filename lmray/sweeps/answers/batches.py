"""What a batch size gains and costs, and which one the noise of the gradients calls for.

The noise scale predicts the critical batch size: steps of that many sequences need twice the fewest
steps, and twice the fewest sequences (McCandlish et al. 2018, arXiv:1812.06162).
"""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from lmray.runs.noise import read_noise
from lmray.sweeps.answers.batch_limits import AtOnce, computed_at_once, end_line, memory_line
from lmray.sweeps.answers.comparison import Cost, Table, cost, number, signed
from lmray.sweeps.answers.tables import Summary, Sweep, best_of, summaries
from lmray.sweeps.axes import shown

KEY = "data.batch_size"

_NOISE_OF_ONE_SEED = 0.02
"""Nats below which losses of one seed each are not told apart."""


@dataclass(frozen=True)
class NoiseAt:
    """The noise scale of the runs at one batch, each at its last checkpoint that has one."""

    values: tuple[float, ...]
    """Sequences."""
    low: float
    high: float
    """The lowest and the highest end of their intervals."""
    tokens: int
    """Training tokens at which it was measured, the earliest of them."""

    @property
    def mean(self) -> float:
        """Geometric."""
        return math.exp(statistics.fmean(map(math.log, self.values)))


@dataclass(frozen=True)
class Batch:
    """One batch size: its best combination, and what all its trials measured."""

    sequences: int
    best: Summary | None
    """Of lowest mean loss at this batch; None while none of its trials is done."""
    cost: Cost
    noise: NoiseAt | None
    """None where no run of the best combination has been measured."""
    at_once: AtOnce | None
    """None while no run has a record of it."""

    @property
    def tokens(self) -> float:
        """Training tokens of the best combination, the mean of its seeds; NaN without one."""
        rows = self.best.rows if self.best else ()
        done = [row.measured["tokens"] for row in rows if row.status == "done"]
        return statistics.fmean(done) if done else math.nan


def batch_sizes(sweep: Sweep, runs: Path) -> list[Batch]:
    """The batch sizes of a sweep, ascending."""
    groups: dict[int, list[Summary]] = {}
    for group in summaries(sweep):
        groups.setdefault(group.rows[0].trial.run.sequences_per_step, []).append(group)
    found = []
    for sequences, tried in sorted(groups.items()):
        best = best_of(tried)
        together = Summary(tuple(row for group in tried for row in group.rows))
        noise = _noise(best, runs) if best else None
        computed = computed_at_once(together.rows, runs)
        found.append(Batch(sequences, best, cost(together, runs), noise, computed))
    return found


def _noise(group: Summary, runs: Path) -> NoiseAt | None:
    rows = []
    for row in group.rows:
        known = [r for r in read_noise(runs / row.trial.id) if r["noise_scale_sequences"]]
        rows += known[-1:]
    if not rows:
        return None
    return NoiseAt(
        tuple(row["noise_scale_sequences"] for row in rows),
        min(row["low"] for row in rows),
        max(math.inf if row["high"] is None else row["high"] for row in rows),
        min(row["tokens"] for row in rows),
    )


def table(found: list[Batch], sweep: Sweep) -> Table:
    """A line for each batch size; without rows where only one was tried."""
    others = [key for key in sweep.space.axes if key != KEY]
    header = ["batch", *(key.rpartition(".")[2] for key in others), "mean loss", "± (95 %)", "done"]
    header += ["tokens", "computed at once", "tokens/s", "peak memory (GB)"]
    header.append("noise scale (sequences)")
    if len(found) < 2:
        return header, []
    rows = []
    for each in found:
        best = each.best
        chosen = [best.rows[0].trial.value(key) if best else "-" for key in others]
        loss = [number(best.loss.mean), number(best.loss.margin), str(best.loss.n)] if best else []
        rows.append(
            [
                str(each.sequences),
                *map(shown, chosen),
                *(loss or ["-", "-", "0"]),
                "-" if math.isnan(each.tokens) else f"{each.tokens:,.0f}",
                str(each.at_once or "not measured"),
                _or_dash(each.cost.tokens_per_s, "{:,.0f}"),
                _or_dash(each.cost.peak_memory_bytes / 1e9, "{:.3f}"),
                _told(each.noise),
            ]
        )
    return header, rows


def _or_dash(value: float, form: str) -> str:
    return "not measured" if math.isnan(value) else form.format(value)


def _told(noise: NoiseAt | None) -> str:
    if noise is None:
        return "not measured"
    return f"{noise.mean:.3g} ({noise.low:.3g} to {noise.high:.3g})"


def lines(found: list[Batch], sweep: Sweep) -> list[str]:
    """Where the loss leaves its plateau, what the noise scale says of it, where memory ends and
    where the batches do, a sentence each.
    """
    done = [each for each in found if each.best is not None]
    told = [_plateau(done), _critical(done)] if len(done) > 1 else []
    if len(found) > 1:
        told.append(memory_line({each.sequences: each.at_once for each in found if each.at_once}))
        told.append(end_line(found[-1].sequences, found[-2].sequences, sweep.space))
    return [line for line in told if line]


def _plateau(done: list[Batch]) -> str:
    lowest = min(done, key=_loss)
    text = f"The lowest loss, {_loss(lowest):.4f}, is that of a batch of {lowest.sequences}"
    for each in done:
        if each.sequences > lowest.sequences and (above := _surely_above(each, lowest)):
            return f"{text}; the first larger one that is surely above it is {above}."
    if lowest is done[-1]:
        return f"{text}, the largest tried, so the plateau ends beyond it."
    return (
        f"{text}; none of the larger ones, up to {done[-1].sequences}, is surely above it, so the "
        f"plateau ends beyond them."
    )


def _loss(batch: Batch) -> float:
    return batch.best.loss.mean if batch.best else math.inf


def _surely_above(each: Batch, lowest: Batch) -> str:
    """The batch and its difference if that is no noise, else an empty text."""
    assert each.best is not None
    assert lowest.best is not None
    over = each.best.over(lowest.best)
    if over.n > 1:
        return f"{each.sequences}, by {signed(over)}" if over.mean > over.margin else ""
    if over.n == 1 and over.mean > _NOISE_OF_ONE_SEED:
        noise = f"one seed: below {_NOISE_OF_ONE_SEED} would be noise"
        return f"{each.sequences}, by {signed(over)} ({noise})"
    return ""


def _critical(done: list[Batch]) -> str:
    measured = [each for each in done if each.noise is not None]
    if not measured:
        ids = " ".join(each.best.rows[0].trial.id for each in done if each.best)
        return (
            f"The gradient noise scale was not measured, so no critical batch size is predicted; "
            f"`lmray noise-scale {ids}` measures it, and the next report has it."
        )
    means = [each.noise.mean for each in measured if each.noise]
    overall = math.exp(statistics.fmean(map(math.log, means)))
    text = (
        f"The noise scale predicts a critical batch of about {overall:.3g} sequences (geometric "
        f"mean over batches of {', '.join(str(each.sequences) for each in measured)}; it was "
        f"{min(means):.3g} to {max(means):.3g})"
    )
    missing = [str(each.sequences) for each in done if each.noise is None]
    if missing:
        text += f"; it was not measured at {', '.join(missing)}"
    return text + "."
