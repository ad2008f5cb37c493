"""The learning rate of each step: linear warm-up, then half a cosine."""

import math

from lmray.config import Optim


def get_lr_cosine_schedule(
    it: int, max_lr: float, min_lr: float, warmup_iters: int, cosine_cycle_iters: int
) -> float:
    """The rate at iteration `it`: a linear warm-up, half a cosine (SGDR, Loshchilov & Hutter 2017).

    With Tw = warmup_iters and Tc = cosine_cycle_iters: it/Tw max_lr before Tw; from Tw to Tc
    min_lr + (1 + cos(pi (it - Tw) / (Tc - Tw))) / 2 (max_lr - min_lr), or max_lr where Tw = Tc;
    min_lr after Tc.
    """
    if it < warmup_iters:
        return it / warmup_iters * max_lr
    if it > cosine_cycle_iters:
        return min_lr
    progress = (it - warmup_iters) / max(1, cosine_cycle_iters - warmup_iters)
    return min_lr + 0.5 * (1 + math.cos(math.pi * progress)) * (max_lr - min_lr)


def learning_rate(step: int, *, optim: Optim, total_steps: int) -> float:
    """The rate with which the update after `step` earlier ones is made, 0 <= step < total_steps.

    Warm-up takes w = round(warmup_fraction * total_steps) steps, at least one and at most all but
    the last: step 0 has lr/w, step w-1 has lr. A cosine then leads to min_lr_fraction * lr at the
    last step. A run of one step has lr.
    """
    warmup_steps = max(1, min(round(optim.warmup_fraction * total_steps), total_steps - 1))
    return get_lr_cosine_schedule(
        step + 1, optim.lr, optim.min_lr_fraction * optim.lr, warmup_steps, total_steps
    )
