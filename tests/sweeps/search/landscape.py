"""Sweeps along an axis without training: a loss that is known for every learning rate."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmray.config import Budget, Evaluation, Run
from lmray.sweeps.decisions.referee import Referee
from lmray.sweeps.ledger import Ledger
from lmray.sweeps.space import Space, Trial
from lmray.sweeps.sweep_directory import claim, read_space
from lmray.sweeps.turns import Turns
from tests.sweeps.decisions.planted import Machine

BASE = Run(budget=Budget(tokens=10_485_760), evaluation=Evaluation(interval_tokens=1_048_576))

Loss = Callable[[Trial, float], float | None]
"""The loss of a trial after a share of its budget; None where it has diverged."""


def bowl(optimum: float, edge: float, *, noise: float = 0.0) -> Loss:
    """A parabola in the logarithm that falls with the tokens, and diverges above `edge`."""

    def loss(trial: Trial, share: float) -> float | None:
        rate, seed = trial.run.optim.lr, trial.run.seed
        if rate > edge:
            return None
        scatter = noise * random.Random(f"{rate} {seed}").gauss()
        return 5 - share + math.log(rate / optimum) ** 2 + scatter

    return loss


class Curves(dict[str, list[Any]]):
    """The curves of trials that are not known before."""

    def __init__(self, known: Callable[[], list[Trial]], levels: list[float], loss: Loss) -> None:
        super().__init__()
        self._known, self._levels, self._loss = known, levels, loss

    def __missing__(self, key: str) -> list[Any]:
        trial = next(each for each in self._known() if each.id == key)
        self[key] = [self._loss(trial, level) for level in self._levels]
        return self[key]


@dataclass
class Sweeping:
    """A sweep of a space in a directory, played on some places."""

    space: Space
    directory: Path
    loss: Loss
    places: int = 2
    draw: random.Random = field(default_factory=lambda: random.Random(0))

    def machine(self) -> Machine:
        """A life of the sweep that begins with what the directory holds."""
        claim(self.directory, self.space, "d")
        ledger, budget = self.directory / "ledger.jsonl", self.space.base.budget.tokens
        turns = Turns(self.space, "d", self.directory, lambda: False)
        judge = Referee(self.space.asha, budget, Ledger(ledger), turns, places=self.places)
        levels = [level / budget for level in judge.levels] + [1.0]
        return Machine(judge, ledger, Curves(turns.trials, levels, self.loss))

    def play(self) -> Space:
        """Plays it to its end and returns the space with all that was added."""
        self.machine().play(self.draw)
        return read_space(self.directory)[0]

    def play_killed(self, chance: float) -> Space:
        """As `play`; after each thing that arrives its driver and all processes may be killed."""
        machine = self.machine()
        machine.take_jobs()
        while not machine.referee.finished:
            if self.draw.random() < chance:
                machine = self.machine()
            else:
                machine.step(self.draw.choice(machine.running)) if machine.running else None
                for trial in list(machine.leaving):
                    machine.leaving.remove(trial)
                    machine.tell("preempted", trial, None)
            machine.take_jobs()
        return read_space(self.directory)[0]
