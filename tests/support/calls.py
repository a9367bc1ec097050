"""Calls for tests, in the form that they have in the raw topic."""

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from schemas.moments import SECOND_US

#: 2026-11-20T12:00:00Z, microseconds since 1970 UTC.
NOON = 1_795_176_000 * SECOND_US


@dataclass(slots=True)
class Raw:
    """What the fold reads of a Kafka record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def slp(number: int, *, at_us: int = NOON, cost: str = "0.000145", **fields: Any) -> dict[str, Any]:
    """Return a StandardLoggingPayload of call `number` that ended at `at_us`, allow-listed."""
    return {
        "id": f"chatcmpl-{number}",
        "litellm_call_id": f"call-{number}",
        "status": "success",
        "model": "openai/gpt-4o",
        "custom_llm_provider": "openai",
        "prompt_tokens": 10,
        "completion_tokens": 12,
        "total_tokens": 22,
        "startTime": (at_us - SECOND_US) / SECOND_US,
        "endTime": at_us / SECOND_US,
        "response_cost": Decimal(cost),
        **fields,
    }


def raw_value(
    call: dict[str, Any],
    *,
    received_us: int = NOON,
    shape: str = "slp",
    kind: str = "end_user",
    checked_at: int = 0,
) -> bytes:
    """Return the value of `litellm.usage.raw` for a call; Decimals become JSON numbers with their own text."""
    numbers: dict[str, str] = {}

    def text(value: object) -> str:
        name = f"@{len(numbers)}@"
        numbers[name] = str(value)
        return name

    envelope = {"v": 1, "source": "webhook", "shape": shape, "received_at": received_us, "id_kind": kind, "call": call}
    if checked_at:
        envelope["checked_at"] = checked_at
    written = json.dumps(envelope, default=text)
    for name, number in numbers.items():
        written = written.replace(f'"{name}"', number)
    return written.encode()


def raw(
    offset: int, call: dict[str, Any], *, customer: str = "acme", received_us: int | None = None, **envelope: Any
) -> Raw:
    """Return a record of the raw topic; its time is when it was received."""
    received = NOON if received_us is None else received_us
    value = raw_value(call, received_us=received, **envelope)
    return Raw(offset, received // 1000, customer.encode(), value)
