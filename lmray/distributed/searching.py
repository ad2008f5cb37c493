"""A Ray Tune searcher that asks a space for its next combination, given the ledger."""

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

Specs = list[dict[str, Any]]
"""What the processes of trials are told."""


class SpaceSearcher(Searcher):
    """Hands out trials that are known, and asks for more when they are gone.

    `more` reads the ledger, so nothing is learnt from what Ray Tune reports, and there is no state
    of its own that Ray would have to keep.
    """

    def __init__(self, waiting: Specs, more: Callable[[], Specs]) -> None:
        super().__init__()
        self._waiting = list(waiting)
        self._more = more

    def suggest(self, trial_id: str) -> Any:
        """The configuration of the next trial, or that there is none."""
        self._waiting = self._waiting or self._more()
        return {"trial": self._waiting.pop(0)} if self._waiting else Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The ledger has it already."""

    def save(self, checkpoint_path: str) -> None:
        """The ledger has it already."""

    def restore(self, checkpoint_path: str) -> None:
        """The ledger has it already."""
