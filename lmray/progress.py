"""How long work tells how far it is: by a callable that is passed in, so only the rim draws."""

from typing import Protocol


class Progress(Protocol):
    """Called now and then while work goes on."""

    def __call__(self, phase: str, done: int, total: int, unit: str) -> None:
        """`done` of `total` `unit`s (bytes, merges, tokens ...) of the named phase are finished."""


def silent(phase: str, done: int, total: int, unit: str) -> None:
    """The Progress that shows nothing."""
