"""The memory that one training step really takes, beside lmray.accounting's figure."""

from pathlib import Path

import torch

from lmray.config import Model
from lmray.errors import PreflightError
from lmray.model import TransformerLM
from lmray.training.chunked_loss import mean_cross_entropy
from lmray.training.optimizers import AdamW
from lmray.training.precision import Precision, autocast, prepare


def measured_peak(
    model: Model, batch: int, device: torch.device | str, precision: Precision = "fp32"
) -> int:
    """Bytes that two steps of AdamW hold at their peak, above what is held before.

    On a GPU by torch's allocator, on a Linux CPU by the resident memory of this process.

    Raises PreflightError where there is no way to measure.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _train(model, batch, torch.device(device), precision)
        return torch.cuda.max_memory_allocated(device) - before
    before = _resident("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to the present
    except OSError as error:
        raise PreflightError(
            f"the peak of resident memory cannot be set back here ({error.strerror}); measure on "
            f"Linux or with a CUDA GPU"
        ) from None
    _train(model, batch, torch.device(device), precision)
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise PreflightError(
        "this system does not tell a process's resident memory; measure on Linux or with a CUDA GPU"
    )


def _train(model: Model, batch: int, device: torch.device, precision: Precision) -> None:
    lm = TransformerLM.from_config(model).to(device)
    prepare(lm, precision)
    optimizer = AdamW(lm.parameters())
    shape = (2, batch, model.context_length)
    inputs, targets = torch.randint(model.vocab_size, shape, device=device)
    for _ in range(2):  # the moments are made in the first step
        with autocast(precision, device):
            loss = mean_cross_entropy(lm(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
