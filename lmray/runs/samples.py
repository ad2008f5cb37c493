"""Texts that a model writes, and those that a run writes at each of its evaluations."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lmray.config import Evaluation
from lmray.errors import LmrayError
from lmray.generation import Sampling, distinct, generate_batch, repetition
from lmray.model import TransformerLM
from lmray.tokenizer import Tokenizer
from lmray.training.measured import finite

SAMPLING = Sampling(temperature=0.8, top_p=0.95)
"""How a run's samples are drawn, and `lmray generate` unless told otherwise."""

_AT_ONCE = 64
"""Texts in a batch: each has keys and values of its own in memory."""


@dataclass(frozen=True)
class Continuation:
    """What a model wrote after a prompt."""

    text: str
    ids: list[int]
    """Its tokens, without the one that ended it."""


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The tokens a model goes on from; an empty prompt begins a document."""
    # A document begins after the separator of the one before.
    return tokenizer.encode(prompt) if prompt else [tokenizer.end_of_text]


def write_on(
    model: TransformerLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    sampling: Sampling,
    seed: int,
) -> list[Continuation]:
    """What the model writes after each prompt, to the end of a document; the i-th by seed + i."""
    found: list[list[int]] = []
    for start in range(0, len(prompts), _AT_ONCE):
        found += generate_batch(
            model,
            [prompt_ids(tokenizer, prompt) for prompt in prompts[start : start + _AT_ONCE]],
            max_new_tokens,
            sampling,
            stop_tokens=(tokenizer.end_of_text,),
            seed=seed + start,
        )
    return [Continuation(tokenizer.decode(ids), ids) for ids in found]


def sampler(
    evaluation: Evaluation, tokenizer: Tokenizer
) -> Callable[[TransformerLM], list[dict[str, Any]]]:
    """What the training loop asks for samples at an evaluation: a record for each prompt.

    Drawn by generators of their own, the same ones each time, so that a run's curve is what it is
    without them. A model that cannot be sampled from has an `error` in place of a text: samples do
    not end a run.
    """

    def sample(model: TransformerLM) -> list[dict[str, Any]]:
        prompts = evaluation.prompts
        try:
            written = write_on(
                model,
                tokenizer,
                prompts,
                max_new_tokens=evaluation.sample_tokens,
                sampling=SAMPLING,
                seed=0,
            )
            told = [{"text": each.text, "new_tokens": len(each.ids)} for each in written]
        except (LmrayError, torch.OutOfMemoryError) as error:
            told = [{"error": str(error)}] * len(prompts)
        return [
            {"prompt": prompt, "seed": seed, "sampling": asdict(SAMPLING), **facts}
            for seed, (prompt, facts) in enumerate(zip(prompts, told, strict=True))
        ]

    return sample


def diversity(texts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """distinct-1 to 3 and repetition of texts of token ids; None where they are too short."""
    facts = {f"distinct_{n}": finite(distinct(texts, n)) for n in (1, 2, 3)}
    return {"texts": len(texts), **facts, "repetition": finite(repetition(texts))}
