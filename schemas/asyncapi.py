"""The contract of the public topics as an AsyncAPI 3.0 document: key, value and headers of each.

`meter.changelog` is not part of it: only the meter uses it, and it changes without notice.
"""

from typing import Any, NamedTuple

from schemas.topics import (
    AUDIT,
    CUSTOMERS,
    DELIVERIES,
    DLQ,
    ENRICHED,
    EVENTS,
    ORGS,
    RATES,
    RAW,
    RECEIPTS,
    REJECTED,
    RETRY,
    RETRY_TIERS,
    Partitions,
    Topic,
)

_CUSTOMER = "LiteLLM's customer id, normalised"
_SUBSCRIPTION = "external_subscription_id"
_ABOUT = (
    "Every topic another program may read. Record keys are UTF-8 text, placed by murmur2 as Java's client does; "
    "values are JSON, headers UTF-8 text. TOPIC_PREFIX, where it is set, precedes every address. Read with "
    "isolation.level=read_committed: what meter, sink and retry write is transactional. Fields are only ever "
    "added; a change that would break a reader is a new topic whose name ends in .v2."
)

#: Each header's meaning, or the name of the schema of its JSON.
_EVENT_HEADERS = {
    "manifest": "Manifest",
    "seal_seq": "number of the part in its raw partition, contiguous",
    "raw_partition": "partition of litellm.usage.raw whose calls the event bills",
}
_FAILED_HEADERS = {
    **_EVENT_HEADERS,
    "reason": "stable code of the last failure",
    "first_error": "reason and detail of the first failure, at most 500 bytes",
    "last_error": "reason and detail of the last failure, at most 500 bytes",
    "origin_topic": "topic the event first failed in",
    "origin_partition": "its partition there",
    "origin_offset": "its offset there",
    "maybe_sent": "1: Lago may have stored it although that is not known; 2: Lago also has an event under its id; else 0",
}
_RETRY_HEADERS = {
    **_FAILED_HEADERS,
    "attempt": "failures so far",
    "not_before": "milliseconds since 1970 UTC before which it is not posted again",
}
_DEAD_HEADERS = {
    **_FAILED_HEADERS,
    "attempts": "failures that made it a dead letter",
    "__connect.errors.topic": "as origin_topic; this and the following as in Kafka Connect (KIP-298)",
    "__connect.errors.partition": "as origin_partition",
    "__connect.errors.offset": "as origin_offset",
    "__connect.errors.connector.name": "consumer group that gave it up",
    "__connect.errors.task.id": "partition that the group read it from",
    "__connect.errors.stage": "VALUE_CONVERTER: it was no event; TASK_PUT: Lago did not take it",
    "__connect.errors.class.name": "code that gave it up",
    "__connect.errors.exception.class.name": "schemas.errors.Rejected: permanently wrong; .Unavailable: tried too often",
    "__connect.errors.exception.message": "as last_error",
}


class Channel(NamedTuple):
    """The contract of one topic; `value` names the schema's file, `writer` the role."""

    topic: Topic
    key: str
    value: str
    writer: str
    headers: dict[str, str]
    note: str = ""


CHANNELS = (
    Channel(
        RAW,
        f"{_CUSTOMER}; the org's id beside `metered`",
        "RawRecord",
        "ingress; api what is `metered`",
        {},
        "Record time is the receipt time. Never written in a transaction.",
    ),
    Channel(REJECTED, f"{_CUSTOMER}; absent where the element names no customer", "Rejection", "ingress and meter", {}),
    Channel(CUSTOMERS, _CUSTOMER, "CustomerRecord", "api", {}, "A record without a value removes the customer."),
    Channel(ORGS, "org id: the customer's external_id in Lago", "OrgRecord", "api", {}, "Without a value: removed."),
    Channel(ENRICHED, _CUSTOMER, "EnrichedUsage", "meter", {}, "Same partition number as the call has in raw."),
    Channel(EVENTS, _SUBSCRIPTION, "LagoEvent", "meter", _EVENT_HEADERS, "The value is posted byte for byte."),
    Channel(
        RETRY,
        _SUBSCRIPTION,
        "LagoEvent",
        "sink and retry",
        _RETRY_HEADERS,
        f"The partition is the tier of the wait, 0 to {RETRY_TIERS - 1}, not the key's.",
    ),
    Channel(
        DLQ, _SUBSCRIPTION, "LagoEvent", "sink and retry", _DEAD_HEADERS, "A value that was no event is kept as it was."
    ),
    Channel(RECEIPTS, "transaction_id", "Receipt", "meter, sink and retry", {}, "The first of an event is pending."),
    Channel(AUDIT, "audit_id", "AuditRecord", "operators' commands and the api", {}),
    Channel(
        DELIVERIES,
        "topic and partition that events were posted from; Lago's unique key of a webhook",
        "DeliveryAttempt",
        "sink, retry and the api",
        {},
    ),
    Channel(RATES, "id of the version", "RateCard", "operators' commands", {}, "A version in force never changes."),
)


def document() -> dict[str, Any]:
    """Return the document as lists and dicts."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Meterbridge topics",
            "version": "1",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {channel.topic.name: _channel(channel) for channel in CHANNELS},
    }


def _channel(channel: Channel) -> dict[str, Any]:
    topic = channel.topic
    partitions = {Partitions.ONE: "1", Partitions.RETRY_TIERS: str(RETRY_TIERS)}.get(
        topic.partitions, "KAFKA_PARTITIONS"
    )
    note = f" {channel.note}" if channel.note else ""
    message: dict[str, Any] = {
        "name": channel.value,
        "payload": {"$ref": f"./{channel.value}.schema.json"},
        "bindings": {"kafka": {"key": {"type": "string", "description": channel.key}, "bindingVersion": "0.5.0"}},
    }
    if channel.headers:
        headers = {name: _header(meaning) for name, meaning in channel.headers.items()}
        message["headers"] = {"type": "object", "properties": headers}
    return {
        "address": topic.name,
        "title": topic.meaning,
        "description": f"Written by {channel.writer}. Partitions: {partitions}.{note}",
        "messages": {channel.value: message},
        "bindings": {"kafka": {"topicConfiguration": _configuration(topic), "bindingVersion": "0.5.0"}},
    }


def _header(meaning: str) -> dict[str, Any]:
    if meaning == "Manifest":
        about = "JSON of which calls the event bills"
        return {
            "type": "string",
            "description": about,
            "contentMediaType": "application/json",
            "x-schema": "./Manifest.schema.json",
        }
    return {"type": "string", "description": meaning}


def _configuration(topic: Topic) -> dict[str, Any]:
    """Return the settings that readers depend on: how long a record is kept."""
    kept: dict[str, Any] = {"cleanup.policy": [topic.config["cleanup.policy"]]}
    if "retention.ms" in topic.config:
        kept["retention.ms"] = int(topic.config["retention.ms"])
    return kept
