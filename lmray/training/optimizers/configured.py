"""The optimizer that a configuration describes: which parameter goes where, and which decays."""

from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lmray.config import Optim
from lmray.model import Embedding
from lmray.training.optimizers.adamw import AdamW
from lmray.training.optimizers.joint import Joint
from lmray.training.optimizers.muon import Muon
from lmray.training.optimizers.sgd import SGD


def make_optimizer(model: nn.Module, optim: Optim) -> Optimizer:
    """The optimizer of optim.name over all of `model`; each group carries its "peak_lr".

    Muon and NorMuon move the matrices between the embeddings and lm_head, AdamW the rest.
    """
    hidden = _hidden_matrices(model) if optim.name in ("muon", "normuon") else set()
    rest = [param for param in model.parameters() if param not in hidden]
    if optim.name == "sgd":
        return SGD(_groups(model, rest, optim), lr=optim.lr, momentum=optim.momentum)
    adamw = AdamW(
        _groups(model, rest, optim),
        lr=optim.lr,
        betas=(optim.beta1, optim.beta2),
        eps=optim.eps,
    )
    if not hidden:
        return adamw
    matrices = [param for param in model.parameters() if param in hidden]
    muon = Muon(
        [{"params": matrices, "peak_lr": optim.matrix_lr}],
        lr=optim.matrix_lr,
        momentum=optim.momentum,
        weight_decay=optim.weight_decay,
        normalised=optim.name == "normuon",
        beta2=optim.beta2,
    )
    return Joint(muon, adamw)


def _groups(model: nn.Module, params: list[nn.Parameter], optim: Optim) -> list[dict[str, Any]]:
    """One group of those that decay and one of those that optim.no_decay excepts, if there are."""
    excepted: set[Tensor] = set()
    if optim.no_decay != "none":
        excepted = {param for param in params if param.ndim != 2}  # a gate is (G, 1, 1)
    if optim.no_decay == "norms+embeddings":
        excepted |= _embeddings(model)
    parts = (
        (optim.weight_decay, [param for param in params if param not in excepted]),
        (0.0, [param for param in params if param in excepted]),
    )
    return [
        {"params": part, "weight_decay": decay, "peak_lr": optim.lr}
        for decay, part in parts
        if part
    ]


def _hidden_matrices(model: nn.Module) -> set[Tensor]:
    head = {param for name, param in model.named_parameters() if name.startswith("lm_head.")}
    outer = _embeddings(model) | head
    return {param for param in model.parameters() if param.ndim == 2 and param not in outer}


def _embeddings(model: nn.Module) -> set[Tensor]:
    modules = [module for module in model.modules() if isinstance(module, Embedding)]
    return {param for module in modules for param in module.parameters()}
