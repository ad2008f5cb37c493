"""What a run is: frozen sections that are valid once built, dotted overrides, the run id.

Each field says its unit and meaning in the line below it. Quantities are stated once; the rest are
properties.
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from lmray.config.model import Model
from lmray.config.section import Count, Section, integral
from lmray.errors import UsageError
from lmray.refusal import explain, unknown_key
from lmray.storage import canonical_json

NUMERICS = 1
"""Part of every run id; raised when a change of the code changes the curve of some config."""


class Data(Section):
    """Where the tokens are and how many a step takes."""

    tokens: str = "tokens/tinystories"
    """Directory of the token dataset; what is in it, not where it is, enters the run id."""
    batch_size: Count = 128
    """Sequences in one optimizer step, over all workers."""


class Optim(Section):
    """AdamW under a cosine schedule with linear warm-up."""

    lr: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Peak learning rate."""
    min_lr_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Learning rate at the end of the budget, as a fraction of the peak."""
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the budget over which the learning rate rises linearly."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the mean of gradients."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of the mean of squared gradients."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the mean square."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled decay per unit of learning rate."""
    clip_norm: Annotated[float, Field(gt=0)] | Literal["none"] = 1.0
    """Largest global L2 norm a gradient keeps."""


class Budget(Section):
    """How long a run trains."""

    tokens: Count = 327_680_000
    """Training tokens, over all workers."""


class Evaluation(Section):
    """When validation loss is measured, and on what."""

    interval_tokens: Count = 16_384_000
    """Training tokens between evaluations on the prefix; the whole split is read at the end."""
    prefix_tokens: Count = 262_144
    """Validation tokens of the fixed prefix, the first windows of the split."""


class Execution(Section):
    """How a run is carried out; nothing here is part of the experiment or of the run id."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto is cuda where there is a GPU."""
    workers: Count = 1
    """Processes that share each global batch; more than one goes through Ray Train."""
    threads: Count | Literal["auto"] = "auto"
    """CPU threads of a worker; auto is the cores it may use, shared among the workers."""
    checkpoint_interval_steps: Count = 500
    """Optimizer steps between checkpoints."""
    keep_checkpoints: Count = 2
    """Newest checkpoints kept; the one of the final step is among them."""
    log_interval_steps: Count = 10
    """Optimizer steps between training records."""


class Tracking(Section):
    """Where metrics go beside metrics.jsonl."""

    wandb: Literal["off", "offline", "online"] = "off"
    """Weights & Biases; offline writes its files beneath the run directory."""
    project: str = "lmray"
    """Weights & Biases project."""


class Run(Section):
    """One training with one seed."""

    model: Model = Model()
    data: Data = Data()
    optim: Optim = Optim()
    budget: Budget = Budget()
    evaluation: Evaluation = Evaluation()
    execution: Execution = Execution()
    tracking: Tracking = Tracking()
    seed: Annotated[int, Field(ge=0, lt=2**32), BeforeValidator(integral)] = 0
    """Fixes initial weights and batches."""

    @property
    def tokens_per_step(self) -> int:
        """Training tokens in one optimizer step, over all workers."""
        return self.data.batch_size * self.model.context_length

    @property
    def steps(self) -> int:
        """Optimizer steps the budget pays for."""
        return self.budget.tokens // self.tokens_per_step

    @model_validator(mode="after")
    def _budget_pays(self) -> "Run":
        if self.steps < 1:
            raise ValueError(
                f"budget.tokens={self.budget.tokens} has no room for one step of data.batch_size="
                f"{self.data.batch_size} x model.context_length={self.model.context_length} = "
                f"{self.tokens_per_step} tokens; raise the budget or lower the batch"
            )
        if self.data.batch_size % self.execution.workers:
            raise ValueError(
                f"data.batch_size={self.data.batch_size} is not divisible by execution.workers="
                f"{self.execution.workers}; choose a number of workers that divides the batch"
            )
        if self.evaluation.prefix_tokens < self.model.context_length:
            raise ValueError(
                f"evaluation.prefix_tokens={self.evaluation.prefix_tokens} is shorter than one "
                f"window of model.context_length={self.model.context_length}; raise it to that"
            )
        return self

    def experiment(self) -> dict[str, Any]:
        """What determines the curve, as plain values; see `Model.experiment`.

        Execution, tracking and the place of the data are no part of it.
        """
        exclude = {"model": True, "execution": True, "tracking": True, "data": {"tokens"}}
        return {**self.model_dump(exclude=exclude), "model": self.model.experiment()}


def run_id(run: Run, data_digest: str) -> str:
    """Twelve hex digits of what determines the curve: experiment, token dataset, numerics.

    `data_digest` is Splits.digest of the run's dataset.
    """
    identity = {"experiment": run.experiment(), "data": data_digest, "numerics": NUMERICS}
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:12]


def build(values: Mapping[str, Any], *, source: str) -> Run:
    """Validates nested `values` into a Run.

    Raises UsageError with one sentence a problem; `source` says where the values came from.
    """
    try:
        return _validate(values)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None


def override(run: Run, changes: Mapping[str, Any]) -> Run:
    """The run with dotted keys changed, as in {"optim.lr": 1e-3}, validated as a whole.

    Raises UsageError for an unknown key, naming the closest ones, and for an impossible value.
    """
    values = run.model_dump()
    for key, value in changes.items():
        if key not in KEYS:
            raise UsageError(unknown_key(key, KEYS))
        section, _, field = key.rpartition(".")
        (values[section] if section else values)[field] = value
    return _validate(values)


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Turns ["optim.lr=1e-3"] into {"optim.lr": 0.001}; see `parse_value`."""
    changes = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise UsageError(f"{text!r} is not key=value; write it as in optim.lr=1e-3")
        parsed = parse_value(value)
        # A directory may be called 2024 or true.
        changes[key] = parsed if isinstance(parsed, str) or key not in _TEXTS else value
    return changes


def parse_value(text: str) -> Any:
    """A Python literal (1e-3, 2_048, 0.5), or true/false, or the text itself."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def flatten(run: Run) -> dict[str, Any]:
    """Every field by its dotted key."""
    return dict(_leaves(run.model_dump(), ""))


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


KEYS = tuple(flatten(Run()))
"""Every dotted key, as overrides, spaces, files and tables spell it."""

_TEXTS = ("data.tokens", "tracking.project")


def _validate(values: Mapping[str, Any]) -> Run:
    try:
        return Run.model_validate(values)
    except ValidationError as error:
        raise UsageError(explain(error, Run, KEYS)) from None
