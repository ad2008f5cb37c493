"""What can be watched of runs, sweeps and builds while they are under way: Ray's gauges, counters.

Ray shows them, as ray_<name>, at the metrics port of the node that set them. It forgets a gauge
that has not been set for two of its report intervals (2 x 10 s, ray 2.60), whoever set it: a thread
sets each again as long as the run is alive, so one that has ended or was killed is gone half a
minute later. A counter stays until its node's Ray ends; so none has a label that a trial brings.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from ray.util.metrics import Counter, Gauge

from lmray.config import Run
from lmray.dataset import ShardRow
from lmray.sweeps.ledger import Status, read_events, statuses
from lmray.threads import repeating
from lmray.training.loop import Record, Report

_AGAIN_S = 4.0
"""Often enough to be within each of Ray's report intervals."""

_TRIAL = ("sweep", "trial")


@dataclass(frozen=True)
class Measure:
    """One gauge or counter."""

    name: str
    """As set here; Prometheus sees ray_<name>, and ray_<name>_total of a counter."""
    unit: str
    meaning: str
    labels: tuple[str, ...] = _TRIAL
    kind: Literal["gauge", "counter"] = "gauge"

    @property
    def exported(self) -> str:
        """What it is called in a query."""
        return f"ray_{self.name}" + ("_total" if self.kind == "counter" else "")


OF_TRAIN = {
    "loss": Measure("lmray_train_loss", "nats/token", "loss of the last record's global batch"),
    "lr": Measure("lmray_learning_rate", "1", "learning rate of its update"),
    "gradient_norm": Measure("lmray_gradient_norm", "1", "norm of its gradient, before clipping"),
    "tokens": Measure("lmray_tokens", "tokens", "training tokens that the run has seen"),
    "progress": Measure("lmray_progress_ratio", "0 to 1", "share of the budget that is spent"),
    "tokens_per_s": Measure("lmray_tokens_per_second", "tokens/s", "speed, evaluations aside"),
    "mfu": Measure("lmray_mfu_ratio", "0 to 1", "share of the peak; only devices that have one"),
    "peak_memory_bytes": Measure(
        "lmray_peak_memory_bytes", "bytes", "most memory so far, the GPU's or the process's"
    ),
}
"""Of each number of a train record that is shown, by its key in metrics.jsonl."""

OF_VALIDATION = {
    "loss": Measure(
        "lmray_validation_loss",
        "nats/token",
        "loss of the last evaluation; scope is prefix, or all at the end",
        (*_TRIAL, "scope"),
    ),
    "bits_per_byte": Measure(
        "lmray_bits_per_byte", "bits/byte", "of the last evaluation", (*_TRIAL, "scope")
    ),
}
"""The same of validation records."""

TRAINED = Measure(
    "lmray_tokens_trained",
    "tokens",
    "trained by the cluster, those that a lost process took with it too",
    ("sweep",),
    "counter",
)
TRIALS = Measure("lmray_trials", "trials", "trials of the sweep that stand so", ("sweep", "status"))
WRITTEN = Measure(
    "lmray_shards_written", "shards", "shards that a build made", ("dataset", "split"), "counter"
)
ENCODED = Measure(
    "lmray_tokens_encoded", "tokens", "tokens of these shards", ("dataset", "split"), "counter"
)

MEASURES = (*OF_TRAIN.values(), *OF_VALIDATION.values(), TRIALS, TRAINED, WRITTEN, ENCODED)
"""All there are."""


@contextmanager
def run_gauges(run: Run, *, sweep: str, trial: str) -> Iterator[Report]:
    """Takes the records of a run, or a worker's if it is the first, and shows the newest numbers.

    A call takes less than a millisecond and waits for nothing.
    """
    labels = {"sweep": sweep, "trial": trial}
    counted = 0
    with _repeated() as show:

        def take(record: Record) -> None:
            nonlocal counted
            if record["kind"] == "start":
                counted = run.batches.tokens(record["step"])
            elif record["kind"] == "validation":
                show(OF_VALIDATION, record, {**labels, "scope": record["scope"]})
            elif record["kind"] == "train":
                show(OF_TRAIN, record, labels)
                if record["tokens"] > counted:
                    _metric(TRAINED).inc(record["tokens"] - counted, {"sweep": sweep})
                counted = record["tokens"]

        yield take


@contextmanager
def sweep_gauges(directory: Path, known: Callable[[], int]) -> Iterator[None]:
    """Shows how many trials of the sweep stand how, by its ledger; `known()` says of how many."""

    def count() -> None:
        stands = list(statuses(read_events(directory / "ledger.jsonl")).values())
        for status in get_args(Status):
            number = stands.count(status)
            number += known() - len(stands) if status == "waiting" else 0
            _metric(TRIALS).set(number, {"sweep": directory.name, "status": status})

    with repeating(count, every_s=_AGAIN_S):
        yield


def count_shard(row: ShardRow, *, dataset: str, split: str) -> None:
    """Counts a shard that has been made."""
    labels = {"dataset": dataset, "split": split}
    _metric(WRITTEN).inc(1, labels)
    if row.tokens:
        _metric(ENCODED).inc(row.tokens, labels)


@contextmanager
def _repeated() -> Iterator[Callable[[Mapping[str, Measure], Record, dict[str, str]], None]]:
    """Something that shows the numbers of a record, again and again until the block ends."""
    shown: dict[tuple[Measure, str], tuple[float | None, dict[str, str]]] = {}

    def show(measures: Mapping[str, Measure], record: Record, labels: dict[str, str]) -> None:
        for key, measure in measures.items():
            # One that is not finite or not known is not shown, an older value least of all.
            shown[measure, labels.get("scope", "")] = record[key], labels

    def set_all() -> None:
        for (measure, _), (value, labels) in shown.copy().items():
            if value is not None:
                _metric(measure).set(value, labels)

    with repeating(set_all, every_s=_AGAIN_S):
        yield show


@cache
def _metric(measure: Measure) -> Any:
    kind = Counter if measure.kind == "counter" else Gauge
    return kind(measure.name, f"{measure.meaning} ({measure.unit})", measure.labels)
