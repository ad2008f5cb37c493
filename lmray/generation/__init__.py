"""Text from a language model, one token at a time."""

from lmray.generation.decoding import generate, generate_batch, stream
from lmray.generation.diversity import distinct, repetition
from lmray.generation.sampling import Sampling, largest, likely_enough, nucleus

__all__ = [
    "Sampling",
    "distinct",
    "generate",
    "generate_batch",
    "largest",
    "likely_enough",
    "nucleus",
    "repetition",
    "stream",
]
