"""Frozen, validated configuration: sections, dotted overrides, the run id."""

from lmray.config.model import Architecture, Model
from lmray.config.run import (
    KEYS,
    NUMERICS,
    Run,
    build,
    flatten,
    override,
    parse_assignments,
    parse_value,
    run_id,
)
from lmray.config.section import Section
from lmray.config.sections import Budget, Data, Evaluation, Execution, Optim, Phase, Tracking

__all__ = [
    "KEYS",
    "NUMERICS",
    "Architecture",
    "Budget",
    "Data",
    "Evaluation",
    "Execution",
    "Model",
    "Optim",
    "Phase",
    "Run",
    "Section",
    "Tracking",
    "build",
    "flatten",
    "override",
    "parse_assignments",
    "parse_value",
    "run_id",
]
