"""One process's share of a training: model, optimizer, its part of each batch, step by step."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from lmray.config import Run
from lmray.dataset import BatchSampler, Splits
from lmray.model import TransformerLM, max_attention_logits
from lmray.model.native import kernels as model_kernels
from lmray.training.accumulation import Room, parts
from lmray.training.batches import batches
from lmray.training.clipping import clip_gradient_norm
from lmray.training.compiling import compiled
from lmray.training.device import resolve_device
from lmray.training.evaluation import evaluate, intervals
from lmray.training.measured import Taken, finite, measure, relative_change
from lmray.training.native import kernels as optimizer_kernels
from lmray.training.optimizers import make_optimizer
from lmray.training.precision import autocast, prepare
from lmray.training.saving import Saver
from lmray.training.sharing import SHARES, Loss, SharedBackward, backward, between_halves

_LOOKED_AT = 4
"""Sequences whose attention logits are recorded."""

_AGREES_EVERY = 8
"""Steps after which several workers ask each other, for which they wait for their devices."""


class Worker:
    """One process's model, optimizer and part of each batch."""

    def __init__(self, run: Run, splits: Splits) -> None:
        together = dist.is_initialized()
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
        self.run, self.splits = run, splits
        self.device = resolve_device(run.execution.device)
        self.waits = self.device.type == "cpu"
        """Whether a step's numbers are there when it returns; a GPU is not waited for."""
        self._queued: deque[torch.cuda.Event] = deque()
        self.agrees_every = 1 if self.world == 1 else _AGREES_EVERY
        """Steps from one question to all workers to the next, at most."""
        torch.manual_seed(run.seed)
        self.model = TransformerLM.from_config(run.model).to(self.device)
        prepare(self.model, run.optim.precision)
        self.optimizer = make_optimizer(self.model, run.optim)
        schedule = run.batches
        samplers = {
            stage.shape: BatchSampler(
                splits.train, stage.shape.sequences, stage.shape.length, run.seed
            )
            for stage in schedule.stages
        }
        self._batch = batches(
            lambda step: samplers[schedule.shape(step)], self.device, self.rank, self.world
        )
        self._room = Room(run.execution.micro_batch)
        # In the order in which batches have them.
        shapes = [(shape.sequences // self.world, shape.length) for shape in samplers]
        threads = torch.get_num_threads()
        self._backward: Callable[[Loss, slice], Tensor] = backward
        first_backward: Callable[[Loss, slice], object] = backward
        if self.device.type == "cpu":
            # Loaded here, not in the first step, whose time is measured.
            model_kernels()
            optimizer_kernels()
        if self.device.type == "cpu" and threads >= SHARES:
            shared = SharedBackward(list(self.model.parameters()), threads)
            self._backward, first_backward = shared, shared.in_turn
        self._mean_loss, self.compile_seconds = compiled(
            self.model, run, shapes, self._room, first_backward
        )
        self.micro_batch = self._room.at_once(shapes[0][0])
        """Sequences computed at once in the last step."""

    def take_step(self, step: int, lr: float, *, compares: bool) -> Taken:
        """Computes the gradient of the global batch and, unless it has diverged, one update.

        With `compares` the update is set against the weights, at the price of a copy of them, and
        the first sequences' attention logits are looked at, at that of their forward pass. `lr` is
        the rate of what optim.lr is the peak for. On a GPU the update does not wait for the
        verdict: whoever evaluates or saves the weights measures first.
        """
        run = self.run
        begun = time.perf_counter()
        # As `compiled` had them: other strides are compiled anew.
        inputs, targets = (part.contiguous() for part in self._batch(step))
        waited = time.perf_counter() - begun
        loss = self._room.fitting(
            lambda micro_batch: self._gradient(inputs, targets, micro_batch), len(inputs)
        )
        self.micro_batch = self._room.at_once(len(inputs))
        loss = self._average(loss)
        limit = math.inf if run.optim.clip_norm == "none" else run.optim.clip_norm
        with between_halves():
            norm = clip_gradient_norm(self.model.parameters(), limit).to(loss)
        taken = Taken(step + 1, lr, torch.stack((loss, norm)), waited)
        if compares:
            largest = self._max_attention_logit(inputs[:_LOOKED_AT])
            taken = dataclasses.replace(taken, max_attention_logit=largest)
        if self.waits and measure([taken], run)[0].diverged:
            return taken
        for group in self.optimizer.param_groups:
            group["lr"] = lr * (group["peak_lr"] / run.optim.lr)
        if not compares:
            self.optimizer.step()
            return taken
        weights = list(self.model.parameters())
        before = [weight.detach().clone() for weight in weights]
        self.optimizer.step()
        return dataclasses.replace(taken, update_ratio=relative_change(before, weights))

    def keep_pace(self) -> None:
        """Waits for the step before the last, so that the clock is the device's to within a step.

        A GPU has only queued a step when it returns; with the last one to work at it stays busy.
        """
        if self.waits:
            return
        queued = torch.cuda.Event()
        queued.record()
        self._queued.append(queued)
        if len(self._queued) > 1:
            self._queued.popleft().synchronize()

    def _max_attention_logit(self, inputs: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
        def largest(micro_batch: int) -> Tensor:
            with autocast(self.run.optim.precision, self.device):
                each = [
                    max_attention_logits(self.model, inputs[rows]).amax()
                    for rows in parts(len(inputs), micro_batch)
                ]
            return torch.stack(each).amax()

        return self._room.fitting(largest, len(inputs))

    def _gradient(
        self, inputs: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], micro_batch: int
    ) -> Float[Tensor, ""]:
        """Leaves the gradient of the mean loss over this worker's sequences; returns that loss."""
        self.optimizer.zero_grad(set_to_none=True)

        def loss(rows: slice) -> Tensor:
            weight = (rows.stop - rows.start) / len(inputs)
            with autocast(self.run.optim.precision, self.device):
                return self._mean_loss(inputs[rows], targets[rows]) * weight

        total = torch.zeros((), device=self.device)
        for rows in parts(len(inputs), micro_batch):
            total += self._backward(loss, rows)
        return total

    def _average(self, loss: Tensor) -> Tensor:
        """Makes every worker's gradients, and the loss it returns, those of the global batch."""
        if self.world == 1:
            return loss
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([loss.reshape(1), *(gradient.flatten() for gradient in gradients)])
        dist.all_reduce(flat)
        flat /= self.world
        averaged, *parts = flat.split([1, *(gradient.numel() for gradient in gradients)])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return averaged[0]

    def validate(self, scope: Literal["prefix", "all"]) -> dict[str, Any]:
        """Validation loss on the fixed prefix, or on the whole split with its intervals."""
        with autocast(self.run.optim.precision, self.device):
            validation = evaluate(
                self.model,
                self.splits.valid,
                context_length=self.run.model.context_length,
                batch_size=self.run.sequences_per_step,
                room=self._room,
                max_tokens="all" if scope == "all" else self.run.evaluation.prefix_tokens,
                device=self.device,
            )
        facts = {
            "loss": finite(validation.loss),
            "bits_per_byte": finite(validation.bits_per_byte),
            "perplexity": finite(validation.perplexity),
            "scored_tokens": validation.tokens,
            "context_length": validation.context_length,
        }
        return facts | (intervals(validation) if scope == "all" else {})

    def agree(self, flag: bool) -> bool:
        """Whether any worker's flag is set, the same answer on all of them."""
        if self.world == 1:
            return flag
        flags = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags.item())

    def shared(self, seconds: float) -> float:
        """What rank 0 measured, on all workers."""
        if self.world == 1:
            return seconds
        value = torch.tensor([seconds], dtype=torch.float64, device=self.device)
        dist.broadcast(value, src=0)
        return value.item()

    def save(self, saver: Saver, step: int, seconds: float) -> None:
        """Has a checkpoint written while the training goes on."""
        if self.rank == 0:
            tokens = self.run.batches.tokens(step)
            saver.save(step, tokens, seconds, self.model, self.optimizer)
