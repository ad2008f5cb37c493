"""The optimizers, each from scratch, and which of them a configuration asks for."""

from lmray.training.optimizers.adamw import AdamW
from lmray.training.optimizers.configured import make_optimizer
from lmray.training.optimizers.joint import Joint
from lmray.training.optimizers.muon import Muon
from lmray.training.optimizers.sgd import SGD

__all__ = ["SGD", "AdamW", "Joint", "Muon", "make_optimizer"]
