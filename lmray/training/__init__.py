"""Optimizers, schedules, the loop, evaluation and checkpoints."""

from lmray.training.clipping import clip_gradient_norm
from lmray.training.optimizers import SGD, AdamW, Muon
from lmray.training.schedules import get_lr_cosine_schedule
from lmray.training.serialization import load_checkpoint, save_checkpoint

__all__ = [
    "SGD",
    "AdamW",
    "Muon",
    "clip_gradient_norm",
    "get_lr_cosine_schedule",
    "load_checkpoint",
    "save_checkpoint",
]
