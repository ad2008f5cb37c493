"""Frozen, validated configuration: sections, dotted overrides, the run id."""

from lmray.config.batch_schedule import BatchSchedule, BatchShape
from lmray.config.model import Architecture, Model
from lmray.config.run import (
    KEYS,
    NUMERICS,
    Run,
    build,
    flatten,
    identity,
    override,
    parse_assignments,
    parse_value,
    run_id,
)
from lmray.config.section import Section
from lmray.config.sections import (
    BatchPhase,
    Budget,
    Data,
    Evaluation,
    Execution,
    LengthPhase,
    Optim,
    Phase,
    Tracking,
)

__all__ = [
    "KEYS",
    "NUMERICS",
    "Architecture",
    "BatchPhase",
    "BatchSchedule",
    "BatchShape",
    "Budget",
    "Data",
    "Evaluation",
    "Execution",
    "LengthPhase",
    "Model",
    "Optim",
    "Phase",
    "Run",
    "Section",
    "Tracking",
    "build",
    "flatten",
    "identity",
    "override",
    "parse_assignments",
    "parse_value",
    "run_id",
]
