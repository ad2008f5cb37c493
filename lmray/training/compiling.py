"""The loss to train on as execution.compile has it, ready before the first step.

Letters of shapes: B sequences, T positions, V vocabulary size.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lmray.config import Run
from lmray.errors import PreflightError
from lmray.model import TransformerLM
from lmray.training.accumulation import Room, parts
from lmray.training.chunked_loss import mean_cross_entropy
from lmray.training.precision import autocast
from lmray.training.sharing import Loss

_MODES = {"default": "default", "max-autotune": "max-autotune-no-cudagraphs"}
"""torch's names. Its CUDA graphs own what they return: gradients of one part would be overwritten
by those of the next."""

_MOST = 1024
"""Shapes that may be compiled; ramps, parts and halves make some tens of them."""

Model = Callable[[Int[Tensor, "B T"]], Float[Tensor, "B T V"]]

MeanLoss = Callable[[Int[Tensor, "B T"], Int[Tensor, "B T"]], Float[Tensor, ""]]
"""The mean cross-entropy of predicting targets from ids."""


def mean_loss(model: Model) -> MeanLoss:
    """That of a model of any kind, in nats, by the loss that is best without a compiler."""
    return lambda ids, targets: mean_cross_entropy(model(ids), targets)


def mean_loss_to_compile(model: Model) -> MeanLoss:
    """The same in torch's own operators, of which its compiler makes one pass for the loss.

    And one for the gradient; nothing in fp32 of the logits' size is left between them.
    """

    def loss(ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
        return functional.cross_entropy(model(ids).flatten(0, 1).float(), targets.flatten())

    return loss


def compiled(
    model: TransformerLM,
    run: Run,
    shapes: Sequence[tuple[int, int]],
    room: Room,
    backward: Callable[[Loss, slice], object],
) -> tuple[MeanLoss, float]:
    """The loss to train on and the seconds that compiling took, 0 where it is off.

    torch compiles for each shape when it first comes, forward and backward; so for batches of
    `shapes` (sequences, length) the gradient of zeros in each size that their parts have is
    computed, by `backward` as in training, and dropped. Where there is no `room`, parts become
    smaller. Raises PreflightError where there is no compiler for C++, or of C beside a GPU.
    """
    mode = run.execution.compile
    if mode == "off":
        return mean_loss(model), 0.0
    begun = time.perf_counter()
    device = next(model.parameters()).device
    refuse_without_compiler(mode, device)
    torch._dynamo.reset()  # what this process compiled of other models counts as well
    # Beyond its limits, of one function and of all, torch would go on without compiling.
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = _MOST
    how = {"mode": _MODES[mode], "dynamic": False}
    if device.type == "cpu":  # where the loss has a kernel of its own
        found = mean_loss(torch.compile(model, **how))
    else:
        found = torch.compile(mean_loss_to_compile(model), **how)

    def compile_parts(micro_batch: int) -> None:
        model.zero_grad(set_to_none=True)
        for size in part_sizes(shapes, micro_batch):
            # Two tensors: of one twice something else would be compiled.
            ids, targets = (torch.zeros(size, dtype=torch.int64, device=device) for _ in range(2))

            def loss(rows: slice, ids: Tensor = ids, targets: Tensor = targets) -> Tensor:
                with autocast(run.optim.precision, device):
                    return found(ids[rows], targets[rows])

            backward(loss, slice(0, len(ids)))

    room.fitting(compile_parts, max(sequences for sequences, _ in shapes))
    model.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return found, time.perf_counter() - begun


def part_sizes(shapes: Iterable[tuple[int, int]], micro_batch: int) -> list[tuple[int, int]]:
    """The different shapes of the parts that batches of these are computed in, in their order."""
    return list(
        dict.fromkeys(
            (rows.stop - rows.start, length)
            for sequences, length in shapes
            for rows in parts(sequences, micro_batch)
        )
    )


def refuse_without_compiler(mode: str, device: torch.device) -> None:
    """Raises PreflightError where torch's compiler has not what it compiles with in its turn."""
    if device.type != "cpu":
        # As Triton looks for it, which builds what starts its kernels.
        if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
            raise PreflightError(
                f"execution.compile={mode} needs a C compiler beside a GPU and there is none; "
                "install gcc, or name one in CC, or set execution.compile=off"
            )
        return
    from torch._inductor.cpp_builder import get_cpp_compiler  # a second, for those who compile
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise PreflightError(
            f"execution.compile={mode} needs a C++ compiler on a CPU and there is none; install "
            "g++, or name one in CXX, or set execution.compile=off"
        ) from error
