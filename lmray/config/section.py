"""What the sections of a configuration share."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def integral(value: Any) -> Any:
    """The int that a float without a fraction is; anything else as it came."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=1), BeforeValidator(integral)]
"""A whole number of at least one; 1e6 is one too."""


class Section(BaseModel):
    """A frozen part of a configuration; an unknown key or a value of another type is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
