"""Training speed beside nanoGPT's architecture in plain torch modules, on this machine's CPU.

    python scripts/bench_training.py --preset tiny --steps 10 --rounds 5

Both models have the preset's dimensions and train on the same random tokens in fp32, in turns of a
few steps, so that a machine that is busy is as busy for both. nanoGPT's block is LayerNorm without
bias, one Linear for queries, keys and values, fused causal attention, and a GELU of four times the
width; its positions are learned, its head is tied to its embedding, and torch's fused AdamW takes
the step after torch's clipping. lmray's step is that of `lmray train`, its threads sharing the
batch; its FFN has the parameters of nanoGPT's to the nearest multiple of 64, its head is not tied.
With --compile it takes part a second time, as with execution.compile=default, and so does nanoGPT;
with --by-torch a time without lmray's kernels, torch computing what they do.

lmray's process keeps the memory that it frees, as `lmray train` does (lmray.machine); nanoGPT's has
the allocator as it comes, and a third contestant is nanoGPT with the memory kept, so that it shows
what comes from where. Each has a process of its own and waits while another has its turn.

Figures are medians over the rounds of the tokens per second of a turn, by wall time and by CPU time
(of all threads, which other programs on the machine disturb less), and of the ratio of the turns
of a round. The share of the peak is what a step's matrix products (forward and backward, by torch's
own count) would take at the speed of a large fp32 product, over what the step took.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from lmray import presets
from lmray.config import Run, override
from lmray.machine import freed_memory_kept
from lmray.model import TransformerLM
from lmray.native import tensors
from lmray.training import clip_gradient_norm
from lmray.training.accumulation import Room
from lmray.training.compiling import MeanLoss, compiled, mean_loss
from lmray.training.device import available_cores
from lmray.training.optimizers import make_optimizer
from lmray.training.sharing import SHARES, Loss, SharedBackward, backward, between_halves


class Block(nn.Module):
    """nanoGPT's."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(d_model, bias=False)
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.output = nn.Linear(d_model, d_model, bias=False)
        self.norm2 = nn.LayerNorm(d_model, bias=False)
        self.up = nn.Linear(d_model, 4 * d_model, bias=False)
        self.gelu = nn.GELU()
        self.down = nn.Linear(4 * d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        heads = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(heads.transpose(1, 2).flatten(-2))
        return x + self.down(self.gelu(self.up(self.norm2(x))))


class NanoGPT(nn.Module):
    """GPT-2 as nanoGPT has it, without biases and dropout, its defaults for training."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        model = run.model
        self.tokens = nn.Embedding(model.vocab_size, model.d_model)
        self.positions = nn.Embedding(model.context_length, model.d_model)
        self.blocks = nn.ModuleList(
            Block(model.d_model, model.num_heads) for _ in range(model.num_layers)
        )
        self.norm = nn.LayerNorm(model.d_model, bias=False)
        self.head = nn.Linear(model.d_model, model.vocab_size, bias=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
        self.tokens.weight = self.head.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


Step = Callable[[Tensor, Tensor], float]


def lmray_step(run: Run) -> tuple[nn.Module, Step]:
    model = TransformerLM.from_config(run.model)
    threads = torch.get_num_threads()
    shared = threads >= SHARES
    how = SharedBackward(list(model.parameters()), threads) if shared else backward
    return model, _lmray_step(run, model, mean_loss(model), how)


def lmray_step_by_torch(run: Run) -> tuple[nn.Module, Step]:
    tensors.usable = lambda *_given: False
    return lmray_step(run)


def compiled_lmray_step(run: Run) -> tuple[nn.Module, Step]:
    model = TransformerLM.from_config(run.model)
    shared = SharedBackward(list(model.parameters()), torch.get_num_threads())
    shape = (run.sequences_per_step, run.model.context_length)
    asked = override(run, {"execution.compile": "default"})
    loss, _ = compiled(model, asked, [shape], Room("auto"), shared.in_turn)
    return model, _lmray_step(run, model, loss, shared)


def _lmray_step(
    run: Run,
    model: nn.Module,
    mean_loss: MeanLoss,
    how: Callable[[Loss, slice], Tensor],
) -> Step:
    optimizer = make_optimizer(model, run.optim)

    def step(inputs: Tensor, targets: Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)

        def loss(rows: slice) -> Tensor:
            weight = (rows.stop - rows.start) / len(inputs)
            return mean_loss(inputs[rows], targets[rows]) * weight

        total = how(loss, slice(0, len(inputs)))
        with between_halves():
            clip_gradient_norm(model.parameters(), 1.0)
        optimizer.step()
        return total.item()

    return step


def nanogpt_step(run: Run) -> tuple[nn.Module, Step]:
    model = NanoGPT(run)
    return model, _nanogpt_step(run, model, model)


def compiled_nanogpt_step(run: Run) -> tuple[nn.Module, Step]:
    model = NanoGPT(run)
    return model, _nanogpt_step(run, model, torch.compile(model, dynamic=False))


def _nanogpt_step(run: Run, model: nn.Module, forward: Callable[[Tensor], Tensor]) -> Step:
    optim = run.optim
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=optim.lr,
        betas=(optim.beta1, optim.beta2),
        fused=True,
    )

    def step(inputs: Tensor, targets: Tensor) -> float:
        loss = functional.cross_entropy(forward(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def peak_flops() -> float:
    """Operations per second of an fp32 product of 2,048 x 2,048 matrices, the best of five."""
    a, b = torch.randn(2, 2048, 2048)
    seconds = min(_seconds(lambda: a @ b) for _ in range(5))
    return 2 * 2048**3 / seconds


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def flops_per_token(model: nn.Module, run: Run) -> float:
    ids = torch.zeros(1, run.model.context_length, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    return 3 * counter.get_total_flops() / run.model.context_length


class Contestant(NamedTuple):
    make: Callable[[Run], tuple[nn.Module, Step]]
    keeps_memory: bool


CONTESTANTS = {
    "lmray": Contestant(lmray_step, True),
    "lmray, compiled": Contestant(compiled_lmray_step, True),
    "lmray, by torch": Contestant(lmray_step_by_torch, True),
    "nanoGPT": Contestant(nanogpt_step, False),
    "nanoGPT, memory kept": Contestant(nanogpt_step, True),
    "nanoGPT, compiled": Contestant(compiled_nanogpt_step, False),
}


class Turn(NamedTuple):
    wall_s: float
    cpu_s: float
    page_faults: int


def contest(name: str, run: Run, threads: int, steps: int, pipe: Connection) -> None:
    """One contestant's process: a turn for each message until there is a False."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    contestant = CONTESTANTS[name]
    with freed_memory_kept() if contestant.keeps_memory else nullcontext():
        model, step = contestant.make(run)
        shape = (run.sequences_per_step, run.model.context_length)
        batches = torch.randint(run.model.vocab_size, (steps, 2, *shape))
        step(*batches[0])
        pipe.send((sum(p.numel() for p in model.parameters()), flops_per_token(model, run)))
        while pipe.recv():
            before, cpu, wall = _page_faults(), time.process_time(), time.perf_counter()
            for batch in batches:
                step(*batch)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            pipe.send(Turn(wall, cpu, _page_faults() - before))


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=presets.PRESETS, default="tiny")
    parser.add_argument("--batch-size", type=int, default=0, help="sequences; the preset's if 0")
    parser.add_argument("--steps", type=int, default=5, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--compile", action="store_true", help="both take part compiled as well")
    parser.add_argument("--by-torch", action="store_true", help="and lmray without its kernels")
    arguments = parser.parse_args()
    absent = [] if arguments.compile else ["compiled"]
    absent += [] if arguments.by_torch else ["by torch"]
    names = [name for name in CONTESTANTS if not any(kind in name for kind in absent)]
    torch.set_num_threads(arguments.threads)
    run = presets.PRESETS[arguments.preset]()
    if arguments.batch_size:
        run = override(run, {"data.batch_size": arguments.batch_size})
    spawning = multiprocessing.get_context("spawn")
    pipes, facts = {}, {}
    for name in names:
        pipes[name], far = spawning.Pipe()
        work = (name, run, arguments.threads, arguments.steps, far)
        spawning.Process(target=contest, args=work, daemon=True).start()
        far.close()  # so that a contestant's death ends the contest
        facts[name] = pipes[name].recv()
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    peaks = []
    for number in range(arguments.rounds):
        peaks.append(peak_flops())
        # Who is first in a round takes turns too.
        for name in sorted(names, reverse=bool(number % 2)):
            pipes[name].send(True)
            turns[name].append(pipes[name].recv())
    for pipe in pipes.values():
        pipe.send(False)
    peak = max(peaks)
    tokens = run.batches.tokens(arguments.steps)
    print(
        f"{arguments.preset}, {run.sequences_per_step} x {run.model.context_length} tokens a step, "
        f"{arguments.threads} threads, peak of matrix products {peak / 1e9:.0f} GFLOP/s"
    )
    for name, (parameters, flops) in facts.items():
        rate = statistics.median(tokens / turn.wall_s for turn in turns[name])
        cpu = statistics.median(tokens / turn.cpu_s for turn in turns[name])
        faults = statistics.median(turn.page_faults for turn in turns[name]) / arguments.steps
        print(
            f"{name:21} {parameters:>10,} parameters {rate:>8,.0f} tokens/s "
            f"{rate * flops / peak:6.1%} of peak, {cpu:>8,.0f} tokens per CPU second, "
            f"{faults:>7,.0f} page faults a step"
        )
    ours_by_theirs = [
        (ours, theirs)
        for ours in names
        for theirs in names
        if ours.startswith("lmray") and theirs.startswith("nanoGPT")
    ] + [("lmray", name) for name in names if "by torch" in name]
    for name, other in ours_by_theirs:
        pairs = list(zip(turns[name], turns[other], strict=True))
        wall = [theirs.wall_s / ours.wall_s for ours, theirs in pairs]
        cpu = [theirs.cpu_s / ours.cpu_s for ours, theirs in pairs]
        print(
            f"{name + ' / ' + other:40} wall {statistics.median(wall):.3f} ({min(wall):.3f} to "
            f"{max(wall):.3f}), CPU {statistics.median(cpu):.3f} ({min(cpu):.3f} to {max(cpu):.3f})"
        )


if __name__ == "__main__":
    main()
