"""Which parent of a traced call is read from a header, and which attributes a span may have."""

import pytest

from connectors.config.tracing_settings import TracingConfig
from connectors.telemetry.traces import attributes as names
from connectors.telemetry.traces.attributes import TEXT_CHARS, attributes
from schemas.topics import TopicNames
from schemas.trace_context import TRACEPARENT, recorded_parent
from streams.core.delivery.batches import EventOutcome

TOPICS = TopicNames.with_prefix("")
ALL = TracingConfig("meterbridge-meter", "always_on", 1.0)
DELIVERED = EventOutcome("delivered", "accepted", "", 1)


def parent(number: int) -> bytes:
    return f"00-{number:032x}-{number:016x}-01".encode()


@pytest.mark.parametrize(
    "text", [b"", b"00-1-1-01", parent(0), parent(1)[:-2] + b"00", b"01" + parent(1)[2:], parent(1) + b"-x"]
)
def test_a_malformed_or_unrecorded_parent_is_ignored(text: bytes) -> None:
    assert recorded_parent(((TRACEPARENT, text),)) == ""
    assert recorded_parent(((TRACEPARENT, parent(1)),)) == parent(1).decode()


def test_an_attribute_is_in_the_list_and_its_text_is_short() -> None:
    assert attributes({names.GEN_AI_MODEL: "m" * 1000, names.HELD: ""}) == {names.GEN_AI_MODEL: "m" * TEXT_CHARS}
    with pytest.raises(KeyError, match=r"user\.id"):
        attributes({"user.id": "ada"})
