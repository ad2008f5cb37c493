"""Which tensors kernels compute with, and how they are handed to them.

torch makes one pass over memory for each operation; a kernel makes one for several. Kernels are for
fp32 on a CPU. Wherever else, and where torch has to see every operation (compiling, counting), it
computes the same formulas.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from lmray.machine import available_cores

_WORTH_A_THREAD = 1 << 17
"""Numbers whose computation takes longer than a thread does to begin."""


def usable(*tensors: Tensor) -> bool:
    """Whether kernels compute these."""
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return False
    return all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.numel() > 0
        for tensor in tensors
    )


def dense(tensor: Tensor) -> Tensor:
    """The tensor, or a copy without gaps in its memory; its last dimension is the innermost."""
    if tensor.is_contiguous() or tensor.stride(-1) != 1:
        return tensor.contiguous()
    like = torch.empty_like(tensor)
    return tensor if like.stride() == tensor.stride() else like.copy_(tensor)


def laid_out_as(other: Tensor, tensor: Tensor) -> Tensor:
    """The tensor, or a copy whose numbers lie as those of `other`, which is dense."""
    if tensor.stride() == other.stride():
        return tensor
    return torch.empty_like(other).copy_(tensor)


def addresses(*tensors: Tensor) -> list[int]:
    """Where their numbers begin, for a kernel; the caller keeps them until it has returned."""
    return [tensor.data_ptr() for tensor in tensors]


def in_parts(work: Callable[[int, int], object], count: int, *, numbers: int) -> None:
    """Calls work(first, last) for parts of range(count), one for each thread torch would use.

    Fewer where there is little to do: `numbers` are how many there are of each of the `count`.
    """
    threads = max(1, min(torch.get_num_threads(), count, count * numbers // _WORTH_A_THREAD))
    if threads == 1:
        work(0, count)
        return
    edges = [count * number // threads for number in range(threads + 1)]
    list(_pool().map(work, edges, edges[1:]))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(available_cores(), thread_name_prefix="lmray-kernel")
