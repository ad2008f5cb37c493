"""Frozen, validated configuration: sections, dotted overrides, the run id."""

from lmray.config.model import Architecture, Model
from lmray.config.run import (
    KEYS,
    NUMERICS,
    Budget,
    Data,
    Evaluation,
    Execution,
    Optim,
    Run,
    Tracking,
    build,
    flatten,
    override,
    parse_assignments,
    parse_value,
    run_id,
)
from lmray.config.section import Section

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
