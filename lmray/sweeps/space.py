"""What a sweep asks: a base run, values to try, seeds, rungs at which trials are compared."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_args

from lmray.config import Run, flatten, override, run_id
from lmray.errors import UsageError
from lmray.refusal import unknown_key
from lmray.sweeps import axes as axis
from lmray.sweeps.axes import Axes, Combination
from lmray.sweeps.axes_plain import from_plain, to_plain
from lmray.sweeps.constraints import Refusal, memory_refusal, nothing_refused, process_memory
from lmray.sweeps.decisions.asha import TO_THE_END, Asha
from lmray.sweeps.ledger import Event
from lmray.sweeps.losers import Keep
from lmray.sweeps.search import (
    KINDS,
    Along,
    Bisect,
    Grid,
    Outcome,
    Population,
    Search,
    Sequential,
    outcomes,
)

__all__ = ["TO_THE_END", "Asha", "Space", "Trial"]


@dataclass(frozen=True)
class Trial:
    """One run of a sweep."""

    id: str
    """The run id."""
    changes: dict[str, Any]
    """What sets it apart from the base: the values of the space's axes, and the seed."""
    run: Run

    @property
    def name(self) -> str:
        """The changes as a reader says them: lr=0.001 batch_size=32 seed=0."""
        return axis.spoken(self.changes)

    @property
    def combination(self) -> Combination:
        """The changes but the seed."""
        return {key: value for key, value in self.changes.items() if key != "seed"}

    def value(self, key: str) -> Any:
        """An axis's value, or where the axis is not there what the run has; "-" if it has none."""
        return self.changes.get(key, flatten(self.run).get(key, "-"))


@dataclass(frozen=True)
class Space:
    """A question: which of these values gives the lowest validation loss at equal tokens?"""

    name: str
    hypothesis: str
    base: Run
    axes: Axes
    seeds: tuple[int, ...]
    asha: Asha
    search: Search = Grid()  # noqa: RUF009 - it is frozen
    baseline: Mapping[str, Any] = field(default_factory=dict)
    """Values of axes that the others are compared with; without any, the best is."""
    memory_gb: float = math.inf
    """GB of a device; a run that takes more of it by lmray.accounting than its share is refused."""
    refuse: Callable[[Run], str] = nothing_refused
    """Why a run is not to be tried; empty if it may be."""
    losers: Keep = "best"
    """What trials that were stopped or diverged keep of their checkpoints."""
    refused: tuple[Refusal, ...] = ()
    """What has been refused before, as sweep.json has it."""
    added: tuple[Combination, ...] = ()
    """Combinations beside the search's design: the search's own later ones, and the user's."""

    def __post_init__(self) -> None:
        axis.check(self.name, self.axes, self.base)
        if not self.seeds:
            raise UsageError(f"space {self.name} has no seeds; set SEEDS = [0] or more of them")
        if self.losers not in get_args(Keep):
            raise UsageError(
                f"space {self.name}: LOSERS={self.losers!r} is none of {', '.join(get_args(Keep))}"
            )
        repeated = [seed for seed in self.seeds if self.seeds.count(seed) > 1]
        if repeated:
            raise UsageError(f"space {self.name} has seed {repeated[0]} twice; list it once")
        self._check_search()
        combinations = self.combinations()
        if not combinations:
            raise UsageError(
                f"space {self.name} has every combination refused ({self.refusals()[0].reason}); "
                f"loosen its constraints"
            )
        runs = (self.run_of(each) for each in combinations)
        self.asha.check(self.name, runs, self.base.budget.tokens)
        if self.baseline and not any(self.is_baseline(each) for each in combinations):
            raise UsageError(
                f"space {self.name}: no combination has the BASELINE {dict(self.baseline)}; name "
                f"values that are tried"
            )

    def _check_search(self) -> None:
        search = self.search
        if isinstance(search, Population):
            search.check(self.axes, self.base, self.seeds)
        if isinstance(search, Sequential) and self.refuse is not nothing_refused:
            raise UsageError(
                f"space {self.name} has refuse() and {type(search).__name__}, whose combinations "
                f"are not known before; search by Sobol, or drop refuse()"
            )
        if isinstance(search, Along):
            search.check(self.axes)
        if isinstance(search, Bisect | Population) and self.asha.mode != "none":
            raise UsageError(
                f"space {self.name} asks by {type(search).__name__}, which learns from how runs "
                f"end, and stops some early; set ASHA = TO_THE_END"
            )

    def is_baseline(self, combination: Mapping[str, Any]) -> bool:
        """Whether a combination, or a trial's changes, has the baseline's values."""
        return bool(self.baseline) and all(
            combination.get(key) == value for key, value in self.baseline.items()
        )

    def with_overrides(self, changes: Mapping[str, Any]) -> "Space":
        """The same question about another base, or with other rungs, as in {"asha.mode": "stop"}.

        Raises UsageError for what the space varies, and for an unknown key.
        """
        base: dict[str, Any] = {}
        rungs: dict[str, Any] = {}
        known = [f"asha.{key}" for key in asdict(self.asha)]
        for key, value in changes.items():
            if key in self.axes or key == "seed":
                raise UsageError(f"{key} is what space {self.name} varies; edit the space instead")
            section, _, name = key.partition(".")
            if section != "asha":
                base[key] = value
            elif key in known:
                rungs[name] = value
            else:
                raise UsageError(unknown_key(key, known))
        if not changes:
            return self
        return replace(self, base=override(self.base, base), asha=replace(self.asha, **rungs))

    def run_of(self, combination: Mapping[str, Any]) -> Run:
        """The run that a combination describes, perhaps with a seed among its values."""
        return override(self.base, axis.assigned(self.axes, combination))

    def _design(self) -> list[Combination]:
        """What is tried whatever the outcomes."""
        if isinstance(self.search, Population):
            return self.search.first(self.axes, self.base.budget.tokens)
        return self.search.design(self.axes)

    def refusals(self) -> list[Refusal]:
        """The combinations of the design that are not tried, and why."""
        known = {axis.identity(each.combination): each for each in self.refused}
        found = []
        for combination in self._design():
            earlier = known.get(axis.identity(combination))
            reason = earlier.reason if earlier else self.reason(combination)
            if reason:
                found.append(Refusal(combination, reason))
        return found

    def reason(self, combination: Combination) -> str:
        """Why a combination is not tried; empty if it may be."""
        run = self.run_of(combination)
        return memory_refusal(run, self.memory_gb) or self.refuse(run)

    def combinations(self) -> list[Combination]:
        """What is tried, with every seed: the design but what is refused, then what was added."""
        refused = {axis.identity(each.combination) for each in self.refusals()}
        allowed = [each for each in self._design() if axis.identity(each) not in refused]
        # As JSON has them, they are in the order of the alphabet.
        added = [{key: each[key] for key in self.axes if key in each} | each for each in self.added]
        return [*allowed, *added]

    def runs(self) -> list[tuple[dict[str, Any], Run]]:
        """The changes and the Run of every combination with every seed, as they start."""
        combinations = self.combinations()
        changes = [{**each, "seed": seed} for each in combinations for seed in self.seeds]
        return [(change, self.run_of(change)) for change in changes]

    def asked(self, data_digest: str) -> list[Trial]:
        """A trial for each of `runs` on a token dataset; those of equal runs have the same id."""
        return [Trial(run_id(run, data_digest), change, run) for change, run in self.runs()]

    def trials(self, data_digest: str) -> list[Trial]:
        """The trials to run, each once, in the order in which they start."""
        found: dict[str, Trial] = {}
        for trial in self.asked(data_digest):
            found.setdefault(trial.id, trial)
        return list(found.values())

    def next(self, data_digest: str, events: Sequence[Event]) -> Combination | None:
        """What a sequential search tries next, given a ledger; None if it has ended."""
        if not isinstance(self.search, Sequential):
            return None
        seen = self.outcomes(data_digest, events)
        while (found := self.search.next(self.axes, seen)) is not None:
            if self._may_be_added(found):
                return found
            seen.append(Outcome(found, "failed"))
        return None

    def _may_be_added(self, combination: Combination) -> bool:
        try:
            run = self.run_of(combination)
        except UsageError:  # between two whole numbers, say, or beyond what the key takes
            return False
        budget = self.base.budget.tokens
        return not (self.reason(combination) or self.asha.refusal(run, budget))

    def outcomes(self, data_digest: str, events: Sequence[Event]) -> list[Outcome]:
        """How each combination stands, given a ledger."""
        groups: dict[str, dict[int, Trial]] = {}
        for trial in self.asked(data_digest):
            own = groups.setdefault(axis.identity(trial.combination), {})
            own[trial.changes["seed"]] = trial
        told = [[own[seed] for seed in self.seeds] for own in groups.values()]
        return outcomes([(own[0].combination, [t.id for t in own]) for own in told], events)

    def process_memory(self) -> int:
        """Bytes that a process of the largest trial holds on a CPU, of those that are known."""
        return max(process_memory(run) for _, run in self.runs())

    def most_combinations(self) -> int:
        """Combinations that may be tried, those of a search's later choice among them."""
        known = len(self.combinations())
        if isinstance(self.search, Sequential):
            return max(known, self.search.most(self.axes) - len(self.refusals()))
        return known

    def facts(self) -> dict[str, Any]:
        """The space as plain values, for sweep.json; what was added is not among them."""
        return {
            "name": self.name,
            "hypothesis": self.hypothesis,
            "base": self.base.model_dump(),
            "axes": {key: to_plain(values) for key, values in self.axes.items()},
            "seeds": list(self.seeds),
            "asha": asdict(self.asha),
            "search": {"kind": type(self.search).__name__, **asdict(self.search)},
            "baseline": dict(self.baseline),
            "memory_gb": "unlimited" if math.isinf(self.memory_gb) else self.memory_gb,
            "losers": self.losers,
            "refused": [asdict(each) for each in self.refusals()],
        }

    @staticmethod
    def from_facts(facts: Mapping[str, Any], added: Sequence[Combination] = ()) -> "Space":
        """The space that `facts` came from, with combinations that were added to it."""
        # A sweep of before there were searches is a grid.
        search = dict(facts.get("search", {"kind": "Grid"}))
        memory = facts.get("memory_gb", "unlimited")
        return Space(
            name=facts["name"],
            hypothesis=facts["hypothesis"],
            base=Run.model_validate(facts["base"]),
            axes={key: from_plain(values) for key, values in facts["axes"].items()},
            seeds=tuple(facts["seeds"]),
            asha=Asha(**facts["asha"]),
            search=KINDS[search.pop("kind")](**search),
            baseline=facts.get("baseline", {}),
            memory_gb=math.inf if memory == "unlimited" else memory,
            losers=facts.get("losers", "all"),
            refused=tuple(Refusal(**each) for each in facts.get("refused", ())),
            added=tuple(added),
        )
