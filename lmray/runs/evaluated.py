"""A trained model on a whole split: its losses with their intervals, and how varied it writes."""

from typing import Any

import numpy as np

from lmray.dataset import TokenDataset
from lmray.errors import UsageError
from lmray.progress import Progress, silent
from lmray.runs.samples import SAMPLING, diversity
from lmray.runs.trained import Trained, continue_text
from lmray.training.accumulation import Room
from lmray.training.evaluation import Validation, evaluate, intervals, perplexity
from lmray.training.measured import finite
from lmray.training.precision import autocast, prepare


def evaluate_trained(
    trained: Trained,
    split: TokenDataset,
    *,
    context_length: int,
    stride: int,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Scores every token of `split` in the precision of the run; JSON with all that was measured.

    With the run's own context length and stride these are the numbers of its last record.

    Raises UsageError for a context longer than the model was trained for and as `evaluate`.
    """
    run = trained.run
    if not 1 <= context_length <= run.model.context_length:
        raise UsageError(
            f"context_length={context_length} is not from 1 to {run.model.context_length}, what "
            f"the model was trained for; choose one of these"
        )
    prepare(trained.model, run.optim.precision)
    with autocast(run.optim.precision, trained.device):
        found = evaluate(
            trained.model,
            split,
            context_length=context_length,
            batch_size=run.sequences_per_step * run.model.context_length // context_length,
            max_tokens="all",
            device=trained.device,
            room=Room(run.execution.micro_batch),
            stride=stride,
            progress=progress,
        )
    facts = intervals(found)
    ends = {f"perplexity_{end}": facts[f"loss_{end}"] for end in ("low", "high")}
    return {
        "loss": finite(found.loss),
        "perplexity": finite(found.perplexity),
        "bits_per_byte": finite(found.bits_per_byte),
        "tokens": found.tokens,
        "bytes": found.bytes,
        "context_length": found.context_length,
        "stride": found.stride,
        **facts,
        **{key: loss if loss is None else perplexity(loss) for key, loss in ends.items()},
        "loss_by_context": by_context(found),
        "loss_by_position": [finite(loss) for loss in found.loss_by_position.tolist()],
        "tokens_by_position": found.tokens_by_position.tolist(),
    }


def by_context(validation: Validation) -> list[dict[str, Any]]:
    """Mean nats per token by how many tokens a prediction saw: 1, 2, 3 to 4, 5 to 8 and so on."""
    counts = validation.tokens_by_position
    nats = validation.loss_by_position * counts
    rows, first = [], 1
    while first <= len(counts):
        last = min(1 << (first - 1).bit_length(), len(counts))
        within = slice(first - 1, last)
        tokens = int(counts[within].sum())
        loss = finite(float(nats[within].sum()) / tokens)
        rows.append({"first": first, "last": last, "tokens": tokens, "loss": loss})
        first = last + 1
    return rows


def diversity_beside(
    trained: Trained, split: TokenDataset, *, texts: int, max_new_tokens: int
) -> dict[str, dict[str, Any]]:
    """How varied `texts` documents by the model are, and the first ones of `split` cut as short.

    The model's begin after a document's end and are drawn as a run's samples are.
    """
    written = continue_text(
        trained, "", max_new_tokens=max_new_tokens, sampling=SAMPLING, seed=0, samples=texts
    )
    ends = split.document_ends[:texts].astype(np.int64).tolist()
    begins = [0, *ends[:-1]]
    there = [
        split.read(begin, min(end - 1, begin + max_new_tokens)).tolist()  # no separator
        for begin, end in zip(begins, ends, strict=True)
    ]
    return {"model": diversity([each.ids for each in written]), "split": diversity(there)}
