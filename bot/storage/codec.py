"""The core's values as JSON text and back, by their own type hints."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import structlog
from pydantic import TypeAdapter

T = TypeVar("T")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def to_json(value: object) -> str:
    """The JSON text of a value of the core."""
    kind: Any = type(value)
    return _adapter(kind).dump_json(value).decode()


def from_json(kind: type[T], text: str) -> T:
    """The value that `to_json` wrote."""
    of: Any = kind
    value: T = _adapter(of).validate_json(text)
    return value


def readable(kind: type[T], row_id: object, text: str) -> T | None:
    """The value, or None for a row of a newer version (after a step back): it is left for it, and hides no others."""
    try:
        return from_json(kind, text)
    except ValueError as error:
        structlog.get_logger().error("row not readable", kind=kind.__name__, row=row_id, why=type(error).__name__)
        return None
