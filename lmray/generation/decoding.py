"""Generating text with a key-value cache, for one prompt or many.

Letters of shapes: B texts, T positions, V vocabulary size.
"""

from collections.abc import Collection, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lmray.errors import UsageError
from lmray.generation.sampling import Sampling
from lmray.model import KeyValueCache, TransformerLM

_ANYTHING = Sampling()


def generate(
    model: TransformerLM,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    *,
    top_k: int = 0,
    min_p: float = 0.0,
    stop_tokens: Collection[int] = (),
    seed: int = 0,
) -> list[int]:
    """The new token ids alone: at most `max_new_tokens`, ending before the first stop token.

    The model sees the last context_length tokens. The next one is chosen as `Sampling` says, by a
    generator of its own, so that the seed alone decides, on every device.

    Raises UsageError for an empty prompt, an id outside the vocabulary or an impossible setting,
    LmrayError where the model's scores are not finite.
    """
    sampling = Sampling(temperature, top_p, top_k, min_p)
    tokens = stream(model, prompt_ids, max_new_tokens, sampling, stop_tokens=stop_tokens, seed=seed)
    return list(tokens)


def stream(
    model: TransformerLM,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling = _ANYTHING,
    *,
    stop_tokens: Collection[int] = (),
    seed: int = 0,
) -> Iterator[int]:
    """The ids of `generate`, each as soon as it is chosen."""
    for _, token in _decode(model, [prompt_ids], max_new_tokens, sampling, stop_tokens, seed):
        yield token


def generate_batch(
    model: TransformerLM,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling = _ANYTHING,
    *,
    stop_tokens: Collection[int] = (),
    seed: int = 0,
) -> list[list[int]]:
    """`generate` for prompts of any lengths at once, the i-th with the seed `seed` + i."""
    new: list[list[int]] = [[] for _ in prompts]
    for row, token in _decode(model, prompts, max_new_tokens, sampling, stop_tokens, seed):
        new[row].append(token)
    return new


def _decode(
    model: TransformerLM,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    stop_tokens: Collection[int],
    seed: int,
) -> Iterator[tuple[int, int]]:
    """Yields (row, token) as they are chosen; rows that have met a stop token yield no more."""
    _check(model, prompts, max_new_tokens)
    texts = [list(prompt) for prompt in prompts]
    generators = [torch.Generator().manual_seed(seed + row) for row in range(len(texts))]
    going = list(range(len(texts)))
    length = max(map(len, texts), default=0) + max_new_tokens
    caches = model.new_caches(len(texts), min(length, model.context_length))
    was_training = model.training
    model.eval()
    try:
        for step in range(max_new_tokens):
            if not going:
                return
            scores = _next_scores(model, texts, caches, first=step == 0).cpu()
            for row in list(going):
                token = sampling.choose(scores[row], generators[row])
                if token in stop_tokens:
                    going.remove(row)
                else:
                    texts[row].append(token)
                    yield row, token
    finally:
        model.train(was_training)


@torch.no_grad()
def _next_scores(
    model: TransformerLM, texts: list[list[int]], caches: list[KeyValueCache], *, first: bool
) -> Float[Tensor, "B V"]:
    """The model's scores of the token after each text.

    The cache takes the whole texts at first and then the last token of each. Past the context the
    window slides, which changes every position that a cache would hold: windows are computed anew.
    """
    fits = max(map(len, texts)) <= model.context_length
    if fits and not first:
        windows = [text[-1:] for text in texts]
        starts = [len(text) - 1 for text in texts]
    else:
        windows = [text[-model.context_length :] for text in texts]
        starts = [0] * len(texts)
    widest = max(map(len, windows))
    # Shorter ones end in padding: no position looks ahead, and a cache overwrites it.
    padded = [window + [0] * (widest - len(window)) for window in windows]
    device = model.token_embeddings.weight.device
    ids = torch.tensor(padded, device=device)  # (B, T)
    positions = torch.tensor(starts, device=device).unsqueeze(-1) + torch.arange(
        widest, device=device
    )
    hidden = model.hidden_states(ids, positions, caches=caches if fits else ())
    last = torch.tensor([len(window) - 1 for window in windows], device=device)
    return model.logits(hidden[torch.arange(len(texts), device=device), last])


def _check(model: TransformerLM, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    for prompt_ids in prompts:
        unknown = [token for token in prompt_ids if not 0 <= token < model.vocab_size]
        if not prompt_ids:
            raise UsageError(
                "prompt_ids is empty and the model needs a token to go on from; give one"
            )
        if unknown:
            raise UsageError(
                f"prompt_ids holds {unknown[0]}, not one of the model's {model.vocab_size} ids; "
                f"encode the prompt with the tokenizer of the run"
            )
    if max_new_tokens < 0:
        raise UsageError(f"max_new_tokens={max_new_tokens} is negative; choose 0 or more")
