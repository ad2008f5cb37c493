"""The model as execution.compile has it, ready before the first step."""

import time
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmray.config import Run
from lmray.errors import PreflightError
from lmray.model import TransformerLM
from lmray.training.chunked_loss import mean_cross_entropy
from lmray.training.precision import autocast
from lmray.training.sharing import SHARES, Loss

Forward = Callable[[Int[Tensor, "B T"]], Float[Tensor, "B T V"]]


def compiled(
    model: TransformerLM,
    run: Run,
    shapes: Iterable[tuple[int, int]],
    backward: Callable[[Loss, slice], object],
) -> tuple[Forward, float]:
    """The model to train with and the seconds that compiling took, 0 where it is off.

    torch compiles for each shape (sequences, length) when it first comes, forward and backward; so
    the gradient of a batch of zeros is computed for each of them, by `backward` as in training, and
    dropped. Raises PreflightError on a CPU without a C++ compiler.
    """
    mode = run.execution.compile
    if mode == "off":
        return model, 0.0
    begun = time.perf_counter()
    device = next(model.parameters()).device
    if device.type == "cpu":
        _refuse_without_compiler(mode)
    forward = torch.compile(model, mode=mode, dynamic=False)
    different = set(shapes)
    # Beyond its limit torch would go on without compiling.
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, 2 * SHARES * len(different))
    for shape in different:
        ids = torch.zeros(shape, dtype=torch.int64, device=device)

        def loss(rows: slice, ids: Tensor = ids) -> Tensor:
            with autocast(run.optim.precision, device):
                return mean_cross_entropy(forward(ids[rows]), ids[rows])

        backward(loss, slice(0, len(ids)))
    model.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return forward, time.perf_counter() - begun


def _refuse_without_compiler(mode: str) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler  # a second, for those who compile
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise PreflightError(
            f"execution.compile={mode} needs a C++ compiler on a CPU and there is none; install "
            "g++, or name one in CXX, or set execution.compile=off"
        ) from error
