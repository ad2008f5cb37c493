"""Choosing the next token from a model's scores.

Letters of shapes: V vocabulary size.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lmray.errors import LmrayError, UsageError
from lmray.model import softmax


@dataclass(frozen=True)
class Sampling:
    """Draws from softmax(logits / temperature), cut by top_k, then top_p, then min_p.

    Raises UsageError for a value outside its range.
    """

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """Keeps the likeliest tokens of this mass (`nucleus`); 1 keeps all."""
    top_k: int = 0
    """Keeps this many of the likeliest tokens; 0 keeps all."""
    min_p: float = 0.0
    """Keeps tokens at least this likely relative to the likeliest; 0 keeps all."""

    def __post_init__(self) -> None:
        for name, allowed, rule, remedy in (
            (
                "temperature",
                0 <= self.temperature < float("inf"),
                "a number from 0",
                "0 takes the likeliest token",
            ),
            ("top_p", 0 < self.top_p <= 1, "in (0, 1]", "1 keeps every token"),
            ("top_k", self.top_k >= 0, "a whole number from 0", "0 keeps every token"),
            ("min_p", 0 <= self.min_p <= 1, "in [0, 1]", "0 keeps every token"),
        ):
            if not allowed:
                raise UsageError(f"{name}={getattr(self, name)} is not {rule}; {remedy}")

    def choose(self, logits: Float[Tensor, " V"], generator: torch.Generator) -> int:
        """The next token; drawn on the CPU in fp64, so that the generator alone decides.

        Raises LmrayError where the scores are not finite.
        """
        scores = logits.to("cpu", torch.float64)
        if not scores.isfinite().all():
            raise LmrayError(
                "the model's scores are not finite: its training diverged; use an earlier "
                "checkpoint or a run with a lower optim.lr"
            )
        if self.temperature == 0:
            return int(scores.argmax())
        # From the maximum down, for a small temperature would make the largest score overflow.
        probabilities = softmax((scores - scores.max()) / self.temperature, dim=-1)
        probabilities = largest(probabilities, self.top_k)
        probabilities = nucleus(probabilities, self.top_p)
        probabilities = likely_enough(probabilities, self.min_p)
        return int(torch.multinomial(probabilities, 1, generator=generator))


def largest(probabilities: Float[Tensor, " V"], top_k: int) -> Float[Tensor, " V"]:
    """Zeroes all but the `top_k` likeliest tokens, and rescales to 1; 0 keeps all.

    Among equals the lower id comes first.
    """
    if top_k == 0:
        return probabilities
    order = probabilities.argsort(descending=True, stable=True)
    return _only(probabilities, order[:top_k])


def nucleus(probabilities: Float[Tensor, " V"], top_p: float) -> Float[Tensor, " V"]:
    """Zeroes all but the fewest likeliest tokens that together reach `top_p`, and rescales to 1.

    Never fewer than one; among equals the lower id comes first. (Holtzman et al. 2020.)
    """
    if top_p == 1:  # rounding in the sum must not cut off the tail
        return probabilities
    ordered, order = probabilities.sort(descending=True, stable=True)
    mass_before = ordered.cumsum(0) - ordered
    return _only(probabilities, order[mass_before < top_p])


def likely_enough(probabilities: Float[Tensor, " V"], min_p: float) -> Float[Tensor, " V"]:
    """Zeroes tokens less likely than `min_p` times the likeliest, and rescales to 1.

    (Nguyen et al. 2024.)
    """
    return _only(probabilities, probabilities >= min_p * probabilities.max())


def _only(probabilities: Float[Tensor, " V"], chosen: Tensor) -> Float[Tensor, " V"]:
    kept = torch.zeros_like(probabilities)
    kept[chosen] = probabilities[chosen]
    return kept / kept.sum()
