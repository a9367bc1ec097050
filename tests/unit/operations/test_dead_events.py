"""What `meterbridge dlq` reads in an event that Lago refused."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from connectors.operations.dead_letters import EVENTS, dead_letter_of
from tests.support.projection import event


class Refused:
    """A record of the dead-letter topic."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def value(self) -> bytes:
        return self._value

    def key(self) -> bytes:
        return b"sub"

    def headers(self) -> list[tuple[str, bytes]]:
        return [("reason", b"no_charge")]

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 17

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_795_176_000_000


@pytest.mark.parametrize(("cents", "usd"), [("1.45", "0.0145"), ("0", "0"), ("", "0")])
def test_an_event_without_an_amount_can_be_sent_again(cents: str, usd: str) -> None:
    """Older releases post events that others measured with an empty amount; such a dead letter was named malformed."""
    sent = msgspec.structs.replace(event(), precise_total_amount_cents=cents)
    record: Any = Refused(msgspec.json.encode(sent))
    found = dead_letter_of(EVENTS, record)
    assert (found.transaction_id, found.subscription, found.reason) == (sent.transaction_id, "sub", "no_charge")
    assert found.usd == Decimal(usd)
