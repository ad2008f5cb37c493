"""A sweep without training: trials whose losses are planted, on a machine that finishes them in an
order drawn by lot, or in one that is given."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmray.config import Run
from lmray.sweeps.decisions.asha import Asha
from lmray.sweeps.decisions.referee import Referee
from lmray.sweeps.ledger import Ledger, read_events
from lmray.sweeps.space import Trial

BUDGET = 1000
LEVELS = (100, 200, 400, 800)
"""Of an Asha with grace 100 and factor 2."""


def trials(curves: dict[str, list[float | None]]) -> list[Trial]:
    """One of each curve; t3/1 is the combination t3 with seed 1."""
    names = [(name, *name.partition("/")[::2]) for name in curves]
    return [Trial(name, {"variant": what, "seed": seed}, Run()) for name, what, seed in names]


def record(tokens: int, loss: float | None) -> dict[str, Any]:
    facts = {"step": tokens // 10, "seconds": 1.0, "bits_per_byte": 1.0, "perplexity": 9.0}
    return {"kind": "validation", "tokens": tokens, "loss": loss, **facts}


@dataclass
class Machine:
    """Plays processes to a referee. A curve has the loss at each rung, then the final one; None is
    not finite, "crash" a failure, once."""

    referee: Referee
    ledger: Path
    curves: dict[str, list[Any]]
    running: list[str] = field(default_factory=list)
    leaving: list[str] = field(default_factory=list)
    arrived: list[tuple[Any, ...]] = field(default_factory=list)
    """What the referee has been told, in order."""
    most: int = 0
    """Processes that trained at once."""

    def take_jobs(self) -> None:
        for trial in list(self.referee.jobs):
            if trial not in self.running + self.leaving:
                self.referee.jobs.remove(trial)
                self.running.append(trial)
        self.most = max(self.most, len(self.running))

    def play(self, draw: random.Random) -> list[tuple[Any, ...]]:
        """Plays the sweep to its end; returns what arrived in which order."""
        self.take_jobs()
        while not self.referee.finished and not self.referee.broken:
            assert self.running or self.leaving, "nothing runs, and the sweep is not finished"
            trial = draw.choice(self.running + self.leaving)
            if trial in self.leaving:
                self.leaving.remove(trial)
                self.tell("preempted", trial, None)
            else:
                self.step(trial)
            # Having told how it ended, a process may still die.
            gone = trial not in [*self.running, *self.leaving, *self.referee.jobs]
            if gone and draw.random() < 0.3:
                self.tell("died", trial)
            self.take_jobs()
        return self.arrived

    def step(self, trial: str) -> None:
        judged = self.verdicts(trial)
        curve = self.curves[trial]
        reached = len(judged)
        if curve[reached] == "crash":
            self.curves[trial] = [*curve[:reached], *curve[reached + 1 :]]
            self.running.remove(trial)
            self.tell("failed", trial)
        elif reached == len(self.referee.levels):
            self.running.remove(trial)
            status = "diverged" if curve[-1] is None else "done"
            self.tell(status, trial, curve[-1])
        else:
            self.tell("judged", trial, record(self.referee.levels[reached], curve[reached]))
            if self.verdicts(trial)[-1] != "rung":
                self.running.remove(trial)
                self.leaving.append(trial)

    def tell(self, what: str, trial: str, *facts: Any) -> None:
        self.arrived.append((what, trial, *facts))
        tell(self.referee, what, trial, *facts)

    def verdicts(self, trial: str) -> list[str]:
        found: dict[int, str] = {}
        for event in read_events(self.ledger):
            if event.trial == trial and "rung" in event.facts:
                found.setdefault(event.facts["rung"], event.kind)
        return list(found.values())


def tell(referee: Referee, what: str, trial: str, *facts: Any) -> None:
    if what == "failed":
        referee.failed(trial, "ValueError: planted", trace=trial)
    elif what == "died":
        referee.failed(trial, "its process was lost", trace="", lost=True)
    elif what == "judged":
        referee.judge(trial, facts[0])
    else:
        referee.ended(trial, what, {"tokens": BUDGET, "loss": facts[0]})


def referee(
    asha: Asha, ledger: Path, curves: dict[str, list[Any]], places: int, seeds: int = 1
) -> Referee:
    return Referee(asha, BUDGET, Ledger(ledger), trials(curves), places=places, seeds=seeds)


def played(
    asha: Asha, path: Path, curves: dict[str, list[Any]], places: int, seed: int, seeds: int = 1
) -> Machine:
    machine = Machine(referee(asha, path, curves, places, seeds), path, dict(curves))
    machine.play(random.Random(seed))
    return machine


def check_that_kills_change_nothing(
    asha: Asha, folder: Path, curves: dict[str, list[Any]], places: int, seed: int, seeds: int = 1
) -> None:
    """Plays a sweep, then once more with a kill after each line of its ledger: all end equal."""
    straight = folder / "straight.jsonl"
    arrivals = played(asha, straight, curves, places, seed, seeds).arrived
    expected = lines(straight)
    assert {"rung", "promoted"} & {kind for kind, *_ in expected}
    whole = straight.read_bytes().splitlines(keepends=True)
    for cut in range(len(whole) + 1):
        path = folder / f"{cut}.jsonl"
        path.write_bytes(b"".join(whole[:cut]) + b'{"event":"rung","tri')  # as kill -9 leaves it
        again = referee(asha, path, curves, places, seeds)
        failures: dict[str, int] = {}
        leaving: set[str] = set()
        told = False
        for arrival in arrivals:
            what, trial, *_ = arrival
            # Only processes of this life have still to leave, or die once they have told their end.
            if what == "preempted":
                told = trial in leaving
            elif what != "died":
                told = not _already(path, arrival, failures)
            if told:
                tell(again, *arrival)
                leaving = leaving - {trial} | ({trial} if what == "judged" else set())
        assert lines(path) == expected, f"killed after line {cut}"


def _already(path: Path, arrival: tuple[Any, ...], failures: dict[str, int]) -> bool:
    """Whether a ledger has what this arrival led to."""
    what, trial, *facts = arrival
    own = [event for event in read_events(path) if event.trial == trial]
    if what == "failed":
        failures[trial] = failures.get(trial, 0) + 1
        return sum(event.kind == "failed" for event in own) >= failures[trial]
    if what == "judged":
        return any(event.facts.get("rung") == facts[0]["tokens"] for event in own)
    return any(event.kind == what for event in own)


def lines(ledger: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """The ledger without its times."""
    events = read_events(ledger)
    return [(e.kind, e.trial, {k: v for k, v in e.facts.items() if k != "time"}) for e in events]


def draw_curves(draw: random.Random, count: int, *, mishaps: bool = True) -> dict[str, list[Any]]:
    """Falling curves with ties, some that diverge, and some crashes, one a trial."""
    curves: dict[str, list[Any]] = {}
    for number in range(count):
        start, curve = draw.randint(2, 9), []
        for position in range(len(LEVELS) + 1):
            curve.append(float(start) - position / 8 + draw.choice([0.0, 0.0, 0.25]))
        if mishaps and draw.random() < 0.2:
            place = draw.randrange(len(curve))
            curve[place:] = [None] * (len(curve) - place)
        if mishaps and draw.random() < 0.3:
            curve.insert(draw.randrange(len(curve)), "crash")
        curves[f"t{number}"] = curve
    return curves
