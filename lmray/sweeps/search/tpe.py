"""The tree-structured Parzen estimator (Bergstra et al. 2011), as Optuna has it."""

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from lmray.errors import UsageError
from lmray.sweeps.axes import (
    Axes,
    Combination,
    Integer,
    Leaf,
    LogUniform,
    Uniform,
    combine,
    identity,
)
from lmray.sweeps.search.designs import Sobol, check_trials
from lmray.sweeps.search.outcomes import Outcome

_ATTEMPTS = 50


@dataclass(frozen=True)
class Tpe:
    """Tries next what looks like the good ones so far, and unlike the bad.

    The first combinations are points of a Sobol sequence. Each later one follows from the outcomes
    of those before it and from its number alone, so nothing but the ledger is kept.
    """

    trials: int
    """Combinations tried, the first ones among them; each is trained with every seed."""
    first: int = 8
    """Combinations known before anything is learnt."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_trials(self.trials)
        check_trials(self.first)

    def design(self, axes: Axes) -> list[Combination]:
        """The combinations that wait for no outcome."""
        return Sobol(min(self.first, self.trials), self.seed).design(axes)

    def most(self, axes: Axes) -> int:
        """Combinations tried at most."""
        return self.trials

    def next(self, axes: Axes, seen: Sequence[Outcome]) -> Combination | None:
        """A combination that is not among `seen`; None once there are `trials`, or nothing new.

        Raises UsageError if Optuna is not installed.
        """
        if len(seen) >= self.trials:
            return None
        optuna = _optuna()
        known = {identity(outcome.combination) for outcome in seen}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of experimental options
            sampler = optuna.samplers.TPESampler(
                seed=self.seed + len(seen), n_startup_trials=self.first, constant_liar=True
            )
            study = optuna.create_study(sampler=sampler)
            study.add_trials([_told(optuna, axes, outcome) for outcome in seen])
            for _ in range(_ATTEMPTS):
                trial = study.ask()
                found = combine(axes, lambda name, leaf, trial=trial: _suggest(trial, name, leaf))
                if identity(found) not in known:
                    return found
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return None


def _optuna() -> ModuleType:
    try:
        optuna = importlib.import_module("optuna")
    except ImportError:
        raise UsageError(
            "Tpe needs Optuna, which is not installed; pip install 'lmray[optuna]', or search by "
            "Sobol"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _suggest(trial: Any, name: str, leaf: Leaf) -> Any:
    if isinstance(leaf, Integer):
        return trial.suggest_int(name, leaf.low, leaf.high)
    if isinstance(leaf, Uniform):
        log = isinstance(leaf, LogUniform)
        value = trial.suggest_float(name, leaf.low, leaf.high, log=log)
        return leaf.rounded(value)
    listed = list(leaf)
    return listed[trial.suggest_categorical(name, range(len(listed)))]


def _told(optuna: Any, axes: Axes, outcome: Outcome) -> Any:
    """An outcome as Optuna knows it: values beside the axes are passed over."""
    states, create_trial = optuna.trial.TrialState, optuna.trial.create_trial
    parameters: dict[str, Any] = {}
    distributions: dict[str, Any] = {}
    combination = outcome.combination

    def note(name: str, leaf: Leaf) -> Any:
        key = name.partition("#")[0]
        value = combination.get(key)
        found = _distributed(optuna.distributions, leaf, value)
        if found is not None:
            parameters[name], distributions[name] = found
        return value

    combine(axes, note)
    facts = {"params": parameters, "distributions": distributions}
    if outcome.state == "running":
        return create_trial(state=states.RUNNING, **facts)
    if outcome.state == "done":
        return create_trial(value=outcome.loss, **facts)
    # Optuna ranks pruned trials after complete ones, later ones first, those without a value last.
    cut = {outcome.tokens: outcome.loss} if outcome.state == "stopped" else {}
    return create_trial(state=states.PRUNED, intermediate_values=cut, **facts)


def _distributed(kinds: Any, leaf: Leaf, value: Any) -> tuple[Any, Any] | None:
    """A value and its distribution as Optuna has them; None if it is none of the leaf's."""
    if isinstance(leaf, Uniform | Integer):
        if not isinstance(value, int | float) or not leaf.low <= value <= leaf.high:
            return None
        if isinstance(leaf, Integer):
            return value, kinds.IntDistribution(leaf.low, leaf.high)
        log = isinstance(leaf, LogUniform)
        return value, kinds.FloatDistribution(leaf.low, leaf.high, log=log)
    listed = list(leaf)
    if value not in listed:
        return None
    return listed.index(value), kinds.CategoricalDistribution(range(len(listed)))
