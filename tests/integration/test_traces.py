"""Traces, as an OTLP receiver gets them: one trace leads from a webhook to the post to Lago, and contains nothing
confidential.
"""

import time
from pathlib import Path
from typing import Any

import pytest

from connectors.telemetry.traces.attributes import ALLOWED
from tests.support.eventually import soon
from tests.support.kafka import Kafka
from tests.support.otlp_receiver import OtlpReceiver, SpanReceived, otlp_receiver
from tests.support.stage import Stage
from tests.support.traced_line import traced_line

pytestmark = pytest.mark.kafka

CANARY = "c4n4ry-0b77"
#: A sender's trace: its id, and the id of the sender's span.
FIRST, SECOND, UNRECORDED = ("a" * 32, "1" * 16), ("b" * 32, "2" * 16), ("c" * 32, "3" * 16)
WAY = (
    ("POST /webhook/litellm/usage", "SERVER", "meterbridge-ingress"),
    ("send {raw}", "PRODUCER", "meterbridge-ingress"),
    ("process {raw}", "CONSUMER", "meterbridge-meter"),
    ("send {events}", "PRODUCER", "meterbridge-meter"),
    ("process {events}", "CONSUMER", "meterbridge-sink"),
    ("POST /api/v1/events/batch", "CLIENT", "meterbridge-sink"),
)


def call(number: int, end: float) -> dict[str, Any]:
    """A call with the marker in everything that a trace must not contain."""
    return {
        "id": f"r{number}-{CANARY}",
        "litellm_call_id": f"c{number}-{CANARY}",
        "user": f"customer-{CANARY}",
        "end_user": f"end-{CANARY}",
        "key_alias": f"alias-{CANARY}",
        "team_id": f"team-{CANARY}",
        "api_key": f"sk-{CANARY}",
        "messages": [{"role": "user", "content": CANARY}],
        "response": {"choices": [{"message": {"content": CANARY}}]},
        "metadata": {"user_api_key_user_email": f"{CANARY}@example.com", CANARY: CANARY},
        "request_tags": [f"team:{CANARY}"],
        "model": "gpt-4o",
        "custom_llm_provider": "openai",
        "call_type": "acompletion",
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "response_cost": 0.01,
        "startTime": end - 0.5,
        "endTime": end,
    }


def sender(trace: tuple[str, str], flags: str = "01") -> dict[str, str]:
    """The headers of a sender that traces."""
    return {
        "traceparent": f"00-{trace[0]}-{trace[1]}-{flags}",
        "tracestate": f"vendor={CANARY}",
        "baggage": f"user={CANARY}",
        "X-Request-ID": CANARY,
    }


async def test_one_trace_leads_from_the_webhook_to_the_post_and_shows_no_content(
    kafka: Kafka, topic_prefix: str, tmp_path: Path
) -> None:
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=1)
    stage.map(f"customer-{CANARY}", f"org-{CANARY}", f"sub-{CANARY}")
    switched_on = {"TRACING_ENABLED": "true", "OTEL_TRACES_SAMPLER_ARG": "0", "LOG_LEVEL": "DEBUG"}
    windows = {"WINDOW_SECONDS": "10", "GRACE_SECONDS": "1", "CUSTOMER_ID_FIELDS": "user"}
    async with (
        otlp_receiver() as receiver,
        traced_line(
            kafka,
            topic_prefix,
            tmp_path,
            **switched_on,
            **windows,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        ) as line,
    ):
        end = time.time() // 10 * 10 + 0.5
        await line.post(call(1, end), sender(FIRST))
        await line.post(call(2, end), sender(SECOND))
        await line.post(call(3, end), sender(UNRECORDED, "00"))
        await line.post(call(4, end))
        await line.post(call(2, end), sender(SECOND))  # a repeat
        [event] = await line.until_billed(4)
        names = [name.format(raw=stage.topics.raw, events=stage.topics.events) for name, _, _ in WAY]
        await soon(lambda: set(names) <= receiver.of_trace(FIRST[0]).keys(), 30)
        await soon(lambda: len([span for span in receiver.spans if span.trace == SECOND[0]]) == 6, 30)
    check_way(receiver, names)
    check_links(receiver, names, event["transaction_id"])
    assert {span.trace for span in receiver.spans} == {FIRST[0], SECOND[0]}
    assert {name for span in receiver.spans for name in span.attributes} <= ALLOWED
    assert not [body for body in receiver.raw if CANARY.encode() in body]


def check_way(receiver: OtlpReceiver, names: list[str]) -> None:
    """Each span of the first trace is the child of the one before it."""
    spans = receiver.of_trace(FIRST[0])
    way = [spans[name] for name in names]
    assert [(span.kind, span.service) for span in way] == [(kind, service) for _, kind, service in WAY]
    assert [span.parent for span in way] == [FIRST[1], *(span.span for span in way[:-1])]
    assert not [span for span in way if span.is_error]
    assert way[0].attributes["http.response.status_code"] == 202
    result = way[2].attributes
    assert (result["gen_ai.request.model"], result["gen_ai.operation.name"]) == ("gpt-4o", "chat")
    assert (result["gen_ai.usage.input_tokens"], result["gen_ai.usage.output_tokens"]) == (3, 2)
    assert (result["meterbridge.decision"], result["messaging.kafka.offset"]) == ("billable", 0)
    assert way[4].attributes["meterbridge.outcome"] == "delivered"
    assert way[5].attributes["http.response.status_code"] == 200


def check_links(receiver: OtlpReceiver, names: list[str], transaction_id: str) -> None:
    """The event's span links to both traced calls; the post's to the event."""
    spans = receiver.of_trace(FIRST[0])
    called, sealed, taken, posted = (spans[name] for name in names[2:])
    second, repeat = _calls_of(receiver, SECOND[0], names[2])
    assert sealed.links == ((called.trace, called.span), (second.trace, second.span))
    assert posted.links == ((taken.trace, taken.span),)
    assert sealed.attributes["meterbridge.calls"] == 4
    result = [span.attributes["meterbridge.transaction_id"] for span in (called, second, sealed, taken)]
    assert result == [transaction_id] * 4
    assert repeat.attributes["meterbridge.decision"] == "duplicate"


def _calls_of(receiver: OtlpReceiver, trace: str, name: str) -> list[SpanReceived]:
    found = [span for span in receiver.spans if span.trace == trace and span.name == name]
    return sorted(found, key=lambda span: span.attributes["messaging.kafka.offset"])
