"""The learning rate over the budget: a warm-up, then the shape that the configuration names."""

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


def learning_rate(done: int, total: int, *, optim: Optim) -> float:
    """The rate of the update after which `done` of `total` units are done, 1 <= done <= total.

    Units are optimizer steps, or milliseconds where time is the budget. Warm-up takes
    w = round(warmup_fraction * total) of them, at least one and at most all but the last: lr/w
    after the first, lr after w. Then cosine and linear lead to min_lr_fraction * lr at the last,
    constant stays, and wsd (warm-up, stable, decay: Hu et al. 2024) stays until it falls linearly
    to there over the last decay_fraction. Phases replace all of it. A run of one step has lr.
    """
    if optim.schedule == "phases":
        return optim.lr * _phases(done / total, optim)
    warmup = max(1, min(round(optim.warmup_fraction * total), total - 1))
    floor = optim.min_lr_fraction * optim.lr
    if optim.schedule == "cosine":
        return get_lr_cosine_schedule(done, optim.lr, floor, warmup, total)
    if done <= warmup:
        return done / warmup * optim.lr
    decay = {
        "linear": total - warmup,
        "constant": 0,
        "wsd": min(round(optim.decay_fraction * total), total - warmup),
    }[optim.schedule]
    begin = total - decay
    if done <= begin:
        return optim.lr
    fallen = (done - begin) / decay  # exactly 1 at the end, so that the end is exactly the floor
    return (1 - fallen) * optim.lr + fallen * floor


def _phases(fraction: float, optim: Optim) -> float:
    """The rate at a fraction of the budget, as a fraction of the peak."""
    begin = 0.0
    for phase in optim.phases[:-1]:
        if fraction <= begin + phase.share:
            break
        begin += phase.share
    else:
        phase = optim.phases[-1]
    inside = min(1.0, (fraction - begin) / phase.share)
    if phase.shape == "cosine":
        inside = (1 - math.cos(math.pi * inside)) / 2
    return phase.start + (phase.end - phase.start) * inside
