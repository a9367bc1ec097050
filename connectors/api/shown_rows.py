"""Rows of Postgres as JSON shows them."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from schemas.money import plain


def row_shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with its decimals as plain text, because a number in JSON would be a binary float."""
    return {name: plain(value) if isinstance(value, Decimal) else value for name, value in row.items()}
