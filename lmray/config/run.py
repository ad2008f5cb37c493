"""What a run is: frozen sections that are valid once built, dotted overrides, the run id.

Each field says its unit and meaning in the line below it. Quantities are stated once; the rest are
properties.
"""

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from lmray.config.batch_schedule import BatchSchedule, BatchShape, batch_schedule
from lmray.config.model import Model
from lmray.config.section import Section, integral
from lmray.config.sections import Budget, Data, Evaluation, Execution, Optim, Tracking
from lmray.errors import UsageError
from lmray.refusal import explain, unknown_key
from lmray.storage import canonical_json

NUMERICS = 4
"""Part of every run id; raised when a change of the code changes the curve of some config."""


_LATER = frozenset(
    {
        *(f"optim.{field}" for field in ("name", "matrix_lr", "momentum", "no_decay")),
        *(f"optim.{field}" for field in ("schedule", "decay_fraction", "phases", "precision")),
        *(f"budget.{field}" for field in ("steps", "flops", "seconds")),
        "begins_from",
    }
)
"""Keys younger than the first run ids; they enter an id where they are not at their default."""

_SHOWN = {"prompts", "sample_tokens"}
"""Keys of the evaluation that change what is shown of a run and nothing of its curve."""

_ID_DIGITS = 12


def _run_id_or_none(value: str) -> str:
    if value != "none" and not re.fullmatch(f"[0-9a-f]{{{_ID_DIGITS}}}", value):
        raise ValueError(
            f"begins_from={value!r} is no run id of {_ID_DIGITS} hex digits; name a folder of "
            f"runs/, or none"
        )
    return value


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
    begins_from: Annotated[str, AfterValidator(_run_id_or_none)] = "none"
    """Run id of a run that is done, in the same folder of runs, whose last checkpoint this one goes
    on from with settings of its own; budget.tokens counts what that one has trained too."""

    @property
    def sequences_per_step(self) -> int:
        """Training sequences in one optimizer step at full size, over all workers."""
        per_sequence = self.model.context_length if self.data.batch_unit == "tokens" else 1
        return self.data.batch_size // per_sequence

    @property
    def batches(self) -> BatchSchedule:
        """How large the batch of each step is, to the end of budget.tokens."""
        return batch_schedule(self.data, self.model.context_length, self.budget.tokens)

    @property
    def steps(self) -> int:
        """Optimizer steps that budget.tokens and budget.steps pay for."""
        by_tokens = self.batches.steps
        return by_tokens if self.budget.steps == "none" else min(by_tokens, self.budget.steps)

    @property
    def training_tokens(self) -> int:
        """Training tokens of these steps."""
        return self.batches.tokens(self.steps)

    @model_validator(mode="after")
    def _budget_pays(self) -> "Run":
        batches = self.batches
        full = BatchShape(self.sequences_per_step, self.model.context_length)
        if self.steps < 1:
            raise ValueError(
                f"budget.tokens={self.budget.tokens} has no room for one step of data.batch_size="
                f"{full.sequences} x model.context_length={full.length} = {full.tokens} tokens; "
                f"raise the budget or lower the batch"
            )
        last = batches.stages[-1]
        if last.shape != full or self.steps <= last.step:
            raise ValueError(
                f"the budget ends after {self.steps} steps, before the full batch that follows the "
                f"ramps of data; their shares are of budget.tokens={self.budget.tokens}: lower "
                f"them, or set budget.tokens to what the run will train on"
            )
        for stage in batches.stages:
            if stage.shape.sequences % self.execution.workers:
                raise ValueError(
                    f"data.batch_size={stage.shape.sequences} is not divisible by "
                    f"execution.workers={self.execution.workers}; choose a number of workers that "
                    f"divides the batch"
                )
        return self

    @model_validator(mode="after")
    def _windows_fit(self) -> "Run":
        context = self.model.context_length
        for phase in self.data.length_ramp:
            if phase.context_length > context:
                raise ValueError(
                    f"data.length_ramp has context_length={phase.context_length} and "
                    f"model.context_length={context} is the longest; lower the one or raise the "
                    f"other"
                )
        if self.evaluation.prefix_tokens < context:
            raise ValueError(
                f"evaluation.prefix_tokens={self.evaluation.prefix_tokens} is shorter than one "
                f"window of model.context_length={context}; raise it to that"
            )
        return self

    def experiment(self) -> dict[str, Any]:
        """What determines the curve, as plain values; the batch is in sequences.

        Ramps are the stages that come of them, as (first step, sequences, length).

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
        data: dict[str, Any] = {"batch_size": self.sequences_per_step}
        if len(stages := self.batches.stages) > 1:
            data["ramp"] = [[s.step, s.shape.sequences, s.shape.length] for s in stages]
        values["data"] = data
        for key in _LATER:
            section, _, field = key.rpartition(".")
            place = values[section] if section else values
            if place[field] == _DEFAULTS[key]:
                del place[field]
        return {**values, "model": self.model.experiment()}


def identity(run: Run, data_digest: str) -> dict[str, Any]:
    """What determines the curve: experiment, token dataset, numerics.

    `data_digest` is Splits.digest of the run's dataset.
    """
    return {"experiment": run.experiment(), "data": data_digest, "numerics": NUMERICS}


def run_id(run: Run, data_digest: str) -> str:
    """Twelve hex digits of the run's `identity`."""
    text = canonical_json(identity(run, data_digest))
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]


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
        # A directory may be called 2024 or true, a run 123456789012.
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

_TEXTS = ("data.tokens", "tracking.project", "begins_from")


def _validate(values: Mapping[str, Any]) -> Run:
    try:
        return Run.model_validate(values)
    except ValidationError as error:
        raise UsageError(explain(error, Run, KEYS)) from None
