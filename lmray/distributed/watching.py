"""A run under way, as Ray's dashboard shows it: its gauges, and lines in its process's log."""

from collections.abc import Iterator
from contextlib import contextmanager

from lmray.config import Run
from lmray.distributed.gauges import run_gauges
from lmray.sweeps.axes import spoken
from lmray.sweeps.space import Trial
from lmray.training.loop import Record, Report


def title(trial: Trial) -> str:
    """What gauges, logs and the dashboard call a trial: rate, batch, what else differs, run id."""
    always = {key: trial.value(key) for key in ("optim.lr", "data.batch_size")}
    return f"{spoken({**always, **trial.changes})} {trial.id}"


@contextmanager
def watched(run: Run, report: Report, *, sweep: str, trial: str) -> Iterator[Report]:
    """Shows each record of a run, then passes it on to `report`.

    The log has a line when the run begins, at each evaluation and when it ends; each has the
    trial's name, as one process may run several trials.
    """
    where = "before its first step"

    def say(line: str) -> None:
        print(f"{trial}: {line}", flush=True)

    with run_gauges(run, sweep=sweep, trial=trial) as show:

        def take(record: Record) -> None:
            nonlocal where
            if record["kind"] == "start":
                begins = f"goes on from step {record['step']}" if record["step"] else "begins"
                say(f"{begins}, {record['parameters']:,} parameters on {record['device']}")
            else:
                where = f"step {record['step']}, {record['tokens']:,} tokens"
            if record["kind"] == "validation":
                say(
                    f"{where}: validation loss {_number(record['loss'])} ({record['scope']}), "
                    f"{_number(record['bits_per_byte'])} bits/byte, {record['seconds']:.0f} s"
                )
            show(record)
            report(record)

        try:
            yield take
        except BaseException as error:
            say(f"{type(error).__name__} after {where}")
            raise
        say(f"leaves after {where}")


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"
