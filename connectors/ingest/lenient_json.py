"""Reads an element that strict JSON or its types refuse; every valid field of the allow-list is kept.

Python senders write `NaN`, lone surrogates and raw control characters as JSON. Others write numbers as strings, and objects as
JSON in a string. Only identity, time, cost and customer must be valid (streams/core/metering/tolerant_reader.py).
"""

import binascii
import json
from base64 import b64decode
from typing import Any

from connectors.ingest.rejection_record import InvalidElement
from schemas.reasons import NOT_AN_OBJECT, NOT_JSON, TOO_COMPLEX, TOO_DEEP
from streams.core.metering.json_budget import Budget
from streams.core.metering.tolerant_reader import loose_json


def tree_of(element: bytes, budget: Budget) -> dict[str, Any] | None:
    """Parse the element with `loose_json`; None for `null`, which LiteLLM sends for a call that it cannot describe.

    Raises:
        InvalidElement: `not_json`, `too_deep`, `too_complex`, `not_an_object`.
    """
    if not budget.takes(element):
        raise InvalidElement(
            TOO_COMPLEX,
            "the JSON is not strict, and has too many brackets, commas and strings to be repaired; send strict JSON",
        )
    text = element.decode("utf-8-sig", "replace")
    if not text.strip():
        raise InvalidElement(NOT_JSON, "the body is empty: send a call as a JSON object", offset=0)
    try:
        tree = loose_json(text)
    except json.JSONDecodeError as error:
        at = len(text[: error.pos].encode("utf-8", "replace"))
        cut_off = ", where it ends: was it cut off?" if error.pos >= len(text.rstrip()) else ""
        raise InvalidElement(NOT_JSON, f"the JSON is invalid at byte {at} of the element{cut_off}", offset=at) from None
    except RecursionError:
        raise InvalidElement(TOO_DEEP, "the JSON has too many nested brackets") from None
    if tree is None:
        return None
    if not isinstance(tree, dict):
        raise InvalidElement(NOT_AN_OBJECT, "send each call as a JSON object")
    return tree


def with_data(event: dict[str, Any]) -> dict[str, Any]:
    """Decode `data_base64` of a CloudEvent into `data`. If this fails, `data` becomes a string, which is refused later."""
    encoded = event.get("data_base64")
    if encoded is None or event.get("data") is not None:
        return event
    try:
        data: Any = b64decode(encoded, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError, TypeError):
        data = "not base64"
    return {**event, "data": data}
