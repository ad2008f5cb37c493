"""Sampling text from a language model, one token at a time.

Letters of shapes: V vocabulary size.
"""

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lmray.errors import LmrayError, UsageError
from lmray.model import TransformerLM, softmax


@torch.no_grad()
def generate(
    model: TransformerLM,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    *,
    stop_tokens: Collection[int] = (),
    seed: int = 0,
) -> list[int]:
    """The new token ids alone: at most `max_new_tokens`, ending before the first stop token.

    The model sees the last context_length tokens. Each next one is drawn from softmax(logits /
    temperature) cut to the nucleus of `top_p`; temperature 0 takes the likeliest. Draws are made on
    the CPU by a generator of their own, so that the seed alone decides, on every device.

    Raises UsageError for an empty prompt, an id outside the vocabulary or an impossible setting,
    LmrayError where the model's scores are not finite.
    """
    _check(model, prompt_ids, max_new_tokens, temperature, top_p)
    generator = torch.Generator().manual_seed(seed)
    device = model.lm_head.weight.device
    ids = list(prompt_ids)
    was_training = model.training
    model.eval()
    try:
        for _ in range(max_new_tokens):
            window = torch.tensor([ids[-model.context_length :]], device=device)
            token = _choose(model(window)[0, -1], temperature, top_p, generator)
            if token in stop_tokens:
                break
            ids.append(token)
    finally:
        model.train(was_training)
    return ids[len(prompt_ids) :]


def _check(
    model: TransformerLM,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
) -> None:
    vocab_size = model.lm_head.weight.shape[0]
    unknown = [token for token in prompt_ids if not 0 <= token < vocab_size]
    if not prompt_ids:
        raise UsageError("prompt_ids is empty and the model needs a token to go on from; give one")
    if unknown:
        raise UsageError(
            f"prompt_ids holds {unknown[0]}, not one of the model's {vocab_size} ids; "
            f"encode the prompt with the tokenizer of the run"
        )
    if max_new_tokens < 0:
        raise UsageError(f"max_new_tokens={max_new_tokens} is negative; choose 0 or more")
    if not 0 <= temperature < float("inf"):
        raise UsageError(
            f"temperature={temperature} is not a number from 0; 0 takes the likeliest token"
        )
    if not 0 < top_p <= 1:
        raise UsageError(f"top_p={top_p} is not in (0, 1]; 1 keeps every token")


def _choose(
    logits: Float[Tensor, " V"], temperature: float, top_p: float, generator: torch.Generator
) -> int:
    scores = logits.to("cpu", torch.float64)
    if not scores.isfinite().all():
        raise LmrayError(
            "the model's scores are not finite: its training diverged; use an earlier checkpoint "
            "or a run with a lower optim.lr"
        )
    if temperature == 0:
        return int(scores.argmax())
    # From the maximum down, for a small temperature would make the largest score overflow.
    probabilities = softmax((scores - scores.max()) / temperature, dim=-1)
    return int(torch.multinomial(nucleus(probabilities, top_p), 1, generator=generator))


def nucleus(probabilities: Float[Tensor, " V"], top_p: float) -> Float[Tensor, " V"]:
    """Zeroes all but the fewest likeliest tokens that together reach `top_p`, and rescales to 1.

    Never fewer than one; among equals the lower id comes first. (Holtzman et al. 2020.)
    """
    if top_p == 1:  # rounding in the sum must not cut off the tail
        return probabilities
    ordered, order = probabilities.sort(descending=True, stable=True)
    mass_before = ordered.cumsum(0) - ordered
    kept = torch.zeros_like(probabilities)
    chosen = order[mass_before < top_p]
    kept[chosen] = probabilities[chosen]
    return kept / kept.sum()
