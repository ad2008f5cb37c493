"""What a run is: frozen sections that are valid once built, dotted overrides, the run id.

Each field says its unit and meaning in the line below it. Quantities are stated once; the rest are
properties.
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from lmray.config.model import Model
from lmray.config.section import Section, integral
from lmray.config.sections import Budget, Data, Evaluation, Execution, Optim, Tracking
from lmray.errors import UsageError
from lmray.refusal import explain, unknown_key
from lmray.storage import canonical_json

NUMERICS = 1
"""Part of every run id; raised when a change of the code changes the curve of some config."""


_LATER = frozenset(
    {
        *(f"optim.{field}" for field in ("name", "matrix_lr", "momentum", "no_decay")),
        *(f"optim.{field}" for field in ("schedule", "decay_fraction", "phases", "precision")),
        *(f"budget.{field}" for field in ("steps", "flops", "seconds")),
    }
)
"""Keys younger than the first run ids; they enter an id where they are not at their default."""

_SHOWN = {"prompts", "sample_tokens"}
"""Keys of the evaluation that change what is shown of a run and nothing of its curve."""


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
    def sequences_per_step(self) -> int:
        """Training sequences in one optimizer step, over all workers."""
        per_sequence = self.model.context_length if self.data.batch_unit == "tokens" else 1
        return self.data.batch_size // per_sequence

    @property
    def tokens_per_step(self) -> int:
        """Training tokens in one optimizer step, over all workers."""
        return self.sequences_per_step * self.model.context_length

    @property
    def steps(self) -> int:
        """Optimizer steps that budget.tokens and budget.steps pay for."""
        by_tokens = self.budget.tokens // self.tokens_per_step
        return by_tokens if self.budget.steps == "none" else min(by_tokens, self.budget.steps)

    @model_validator(mode="after")
    def _budget_pays(self) -> "Run":
        if self.data.batch_unit == "tokens" and self.data.batch_size % self.model.context_length:
            raise ValueError(
                f"data.batch_size={self.data.batch_size} tokens is not divisible by "
                f"model.context_length={self.model.context_length}; make it a multiple of that"
            )
        if self.steps < 1:
            raise ValueError(
                f"budget.tokens={self.budget.tokens} has no room for one step of data.batch_size="
                f"{self.sequences_per_step} x model.context_length={self.model.context_length} = "
                f"{self.tokens_per_step} tokens; raise the budget or lower the batch"
            )
        if self.sequences_per_step % self.execution.workers:
            raise ValueError(
                f"data.batch_size={self.sequences_per_step} is not divisible by execution.workers="
                f"{self.execution.workers}; choose a number of workers that divides the batch"
            )
        if self.evaluation.prefix_tokens < self.model.context_length:
            raise ValueError(
                f"evaluation.prefix_tokens={self.evaluation.prefix_tokens} is shorter than one "
                f"window of model.context_length={self.model.context_length}; raise it to that"
            )
        return self

    def experiment(self) -> dict[str, Any]:
        """What determines the curve, as plain values; the batch is in sequences.

        Execution, tracking, samples and the place of the data are no part of it. A key later than
        the first run ids is left out at its default, so that what was run before keeps its id.
        """
        values = self.model_dump(
            exclude={
                "model": True,
                "execution": True,
                "tracking": True,
                "data": True,
                "evaluation": _SHOWN,
            }
        )
        values["data"] = {"batch_size": self.sequences_per_step}
        for key in _LATER:
            section, _, field = key.partition(".")
            if values[section][field] == _DEFAULTS[key]:
                del values[section][field]
        return {**values, "model": self.model.experiment()}


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


_DEFAULTS = flatten(Run())

KEYS = tuple(_DEFAULTS)
"""Every dotted key, as overrides, spaces, files and tables spell it."""

_TEXTS = ("data.tokens", "tracking.project")


def _validate(values: Mapping[str, Any]) -> Run:
    try:
        return Run.model_validate(values)
    except ValidationError as error:
        raise UsageError(explain(error, Run, KEYS)) from None
