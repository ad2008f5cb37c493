"""A Ray Tune searcher that gives out trials one after the other."""

from collections.abc import Callable, Iterator
from typing import Any

from ray.tune.search import Searcher

from lmray.experiments.space import Trial


class InTurn(Searcher):
    """Takes a trial when Ray Tune has a place for it.

    It has no state that Ray would have to keep, and learns nothing from what Ray Tune reports: the
    ledger has it all.
    """

    def __init__(self, trials: Iterator[Trial], spec: Callable[[Trial], dict[str, Any]]) -> None:
        """`spec` is what a trial's process is told."""
        super().__init__()
        self._trials = trials
        self._spec = spec

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The configuration of the next trial, or that there is none."""
        trial = next(self._trials, None)
        return Searcher.FINISHED if trial is None else {"trial": self._spec(trial)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""
