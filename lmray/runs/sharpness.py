"""A run's sharpness at its checkpoints, beside the limit of its learning rate: sharpness.jsonl.

The Hessian is that of the mean loss over a fixed batch of training sequences, the same at every
checkpoint. What the optimizer of the run can bear is known for two of them (see
lmray.training.sharpness): for AdamW the sharpness preconditioned by its own second moments, which
its checkpoint has, up to (2 + 2 beta1) / ((1 - beta1) lr); for SGD with momentum mu the plain one,
up to (2 + 2 mu) / lr. Clipping and weight decay are left out of both.

The preconditioned one is over all parameters but the input embeddings: a row of those has a second
moment only while its token is seen, and divided by almost nothing its curvature would be all there
is (measured: 1e4 to 1e6 times the limit in runs that train well; 2026-11-21).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lmray.config import Optim
from lmray.dataset import BatchSampler
from lmray.errors import PreflightError
from lmray.model import TransformerLM, cross_entropy
from lmray.progress import Progress, silent
from lmray.runs.run_directory import RunDirectory
from lmray.runs.trained import open_data
from lmray.storage import canonical_json, read_lines, write_bytes
from lmray.training import checkpoint
from lmray.training.device import device_at_hand
from lmray.training.sharpness import (
    Eigenvalue,
    Product,
    hessian,
    largest_eigenvalue,
    preconditioned,
    stability_limit,
)

FILE = "sharpness.jsonl"

_TOLERANCE = 0.02
"""Of a residual, relative to the eigenvalue: that is then known far better, to its square."""


def sharpness_along(
    directory: RunDirectory, *, sequences: int, products: int, progress: Progress = silent
) -> list[dict[str, Any]]:
    """Measures at every checkpoint what has not been, and writes a line for each into the file.

    `sequences` are those of the batch; an eigenvalue takes up to `products` of two gradients each.

    Raises PreflightError if there is no checkpoint or the data is not the run's.
    """
    found = list(reversed(checkpoint.newest_first(directory.checkpoints)))
    if not found:
        raise PreflightError(
            f"{directory.path} has no checkpoint; execution.keep_checkpoints=N keeps N of them"
        )
    asked = {"sequences": sequences, "products": products}
    known = {
        record["step"]: record
        for record in read_lines(directory.path / FILE)
        if {key: record[key] for key in asked} == asked
    }
    measure = _Measure(directory, sequences, products)
    whole = len(found) * measure.most
    records = []
    for number, path in enumerate(found):
        step = checkpoint.step_of(path)
        if step not in known:

            def tell(made: int, before: int = number * measure.most) -> None:
                progress("sharpness", before + made, whole, "products")

            known[step] = measure.at(path, tell) | asked
        records.append(known[step])
        text = "".join(canonical_json(each) + "\n" for each in records)
        write_bytes(directory.path / FILE, text.encode())
    progress("sharpness", whole, whole, "products")
    return records


class _Measure:
    """The loss of a fixed batch as a function of a checkpoint's weights, in fp64."""

    def __init__(self, directory: RunDirectory, sequences: int, products: int) -> None:
        self._run, self._products = directory.config, products
        self.most = (2 if self._run.optim.name == "adamw" else 1) * products
        """Products that a checkpoint takes at most."""
        device = device_at_hand(self._run.execution.device)
        splits = open_data(directory)
        length = self._run.model.context_length
        batch = BatchSampler(splits.train, sequences, length, seed=0).batch(0)
        self._inputs, self._targets = (torch.from_numpy(part).to(device) for part in batch)
        self._model = TransformerLM.from_config(self._run.model).to(device).double()

    def _loss(self) -> Float[Tensor, ""]:
        return cross_entropy(self._model(self._inputs), self._targets)

    def at(self, path: Path, tell: Callable[[int], None]) -> dict[str, Any]:
        """The record of a checkpoint; `tell` is told the products made."""
        position = checkpoint.load_weights(path, self._model)
        tensors, rest = checkpoint.optimizer_tensors(path)
        optim, lr = self._run.optim, rest["groups"][0]["lr"]
        parameters = list(self._model.parameters())
        plain = hessian(self._loss, parameters)
        made = 0

        def counted(product: Product) -> Product:
            def multiply(vector: Tensor) -> Tensor:
                nonlocal made
                made += 1
                tell(made)
                return product(vector)

            return multiply

        like = torch.nn.utils.parameters_to_vector(parameters).detach()
        own = self._largest(counted(plain), like)
        facts = {
            "step": position.step,
            "tokens": position.tokens,
            "lr": lr,
            "sharpness": own.value,
            "sharpness_residual": own.residual,
        }
        if optim.name == "adamw":
            moved = _preconditioned_parameters(self._model, self._run.model.tied_embeddings)
            diagonal = _diagonal(moved, tensors, rest["scalars"], optim)
            own_part = hessian(self._loss, list(moved.values()))
            seen = self._largest(counted(preconditioned(own_part, diagonal)), diagonal)
            facts |= {
                "preconditioned": seen.value,
                "preconditioned_residual": seen.residual,
                "limit": stability_limit(lr, optim.beta1),
            }
        elif optim.name == "sgd":
            facts["limit"] = (2 + 2 * optim.momentum) / lr
        return facts

    def _largest(self, product: Product, like: Tensor) -> Eigenvalue:
        return largest_eigenvalue(
            product, like, products=self._products, tolerance=_TOLERANCE, seed=0
        )


def _preconditioned_parameters(model: TransformerLM, tied: bool) -> dict[str, Tensor]:
    """Those whose second moments say how far they move: all, without separate input embeddings."""
    named: dict[str, Tensor] = dict(model.named_parameters())
    return named if tied else {k: v for k, v in named.items() if k != "token_embeddings.weight"}


def _diagonal(
    parameters: dict[str, Tensor], tensors: dict[str, Tensor], scalars: dict[str, Any], optim: Optim
) -> Float[Tensor, " P"]:
    """Adam's preconditioner of the parameters, both means' corrections in it.

    With w = w - lr P^-1 m, P is (1 - beta1^t) (sqrt(v / (1 - beta2^t)) + eps): Cohen et al. 2022.
    """
    parts = []
    for name, parameter in parameters.items():
        step = scalars[f"{name}.step"]
        square = tensors[f"{name}.exp_avg_sq"].to(parameter)
        root = (square / (1 - optim.beta2**step)).sqrt() + optim.eps
        parts.append(((1 - optim.beta1**step) * root).flatten())
    return torch.cat(parts)


def read_sharpness(directory: RunDirectory) -> list[dict[str, Any]]:
    """What has been measured of a run, in the order of its steps; nothing if it has not been."""
    return read_lines(directory.path / FILE)


def over_limit(record: dict[str, Any]) -> float | None:
    """The sharpness that counts for the run's optimizer over its limit; None if there is none."""
    if "limit" not in record:
        return None
    return record.get("preconditioned", record["sharpness"]) / record["limit"]
