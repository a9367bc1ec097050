"""Every field of the log lines: its type, meaning, an example, and whether its name is kept. docs/logs.md is generated
from this list.
"""

from typing import Final, NamedTuple


class LogField(NamedTuple):
    """A field. `stable`: a later release keeps its name and meaning, or the changelog says what replaces it."""

    kind: str
    meaning: str
    example: object
    stable: bool = False


#: Fields of every line, or of every line in one situation.
COMMON: Final = {
    "timestamp": LogField("text", "when, ISO 8601 UTC", "2026-11-29T12:00:00.000001Z", True),
    "level": LogField("text", "`debug`, `info`, `warning`, `error` or `critical`", "warning", True),
    "logger": LogField(
        "text", "module of the product, or the library that wrote the line", "streams.agents.meter", True
    ),
    "event": LogField(
        "text", "what happened: a name of the list below; of a library, its sentence", "usage_held", True
    ),
    "request_id": LogField(
        "text", "id of the HTTP request: `X-Request-ID` of the client, or a new one", "7f3a90c1d2e4b586", True
    ),
    "trace_id": LogField(
        "text", "trace that the line belongs to; only within a recorded span", "4bf92f3577b34da6a3ce929d0e0e4736", True
    ),
    "span_id": LogField("text", "span within that trace", "00f067aa0ba902b7", True),
    "exception": LogField("text", "traceback of an unexpected error", "Traceback (most recent call last): ..."),
}

FIELDS: Final = {
    "address": LogField("text", "host and port of a neighbour, or the address of a client", "kafka:9092"),
    "after": LogField("number", "how many names were logged before the others were left out", 100),
    "again_s": LogField("number", "seconds until the work begins again", 5.0),
    "api": LogField("number", "port of the management API", 3002),
    "app": LogField("text", "Faust's app", "meterbridge-meter"),
    "assigned": LogField("number", "partitions that Kafka has given to this worker", 12),
    "attempt": LogField("number", "number of the attempt, from 1", 2),
    "bridge": LogField("number", "calls that two routes reported under different ids", 1),
    "call": LogField("text", "id of a call of the canary", "canary-1a2b"),
    "call_type": LogField("text", "LiteLLM's type of the call", "acompletion"),
    "calls": LogField("number", "number of calls", 17, True),
    "calls_counted": LogField("number", "calls that were added to windows in the last minute", 3000),
    "calls_sealed": LogField("number", "calls in events that were made in the last minute", 3000),
    "changed": LogField("number", "orgs of which Lago said something new", 2),
    "code": LogField(
        "text or number", "code of an event at Lago, error code of Stripe, or exit code of a process", "ai_usage"
    ),
    "copy": LogField("number", "events that bill calls which another event bills, too", 1),
    "count": LogField("number", "number of the things that the event names", 40),
    "counted_usd": LogField("text", "cost of `calls_counted`, dollars", "12.50"),
    "currency": LogField("text", "currency of an invoice of Lago", "USD"),
    "customer": LogField("text", "LiteLLM's customer id", "user:ada", True),
    "day": LogField("text", "day in UTC", "2026-11-29"),
    "delivered_usd": LogField("text", "billed amount of `events_delivered`, dollars", "12.50"),
    "detail": LogField("text", "explanation of `reason` for people", "no acknowledgement in time"),
    "did_you_mean": LogField("text", "setting that was probably meant", "WEBHOOK_TOKEN"),
    "difference": LogField("text", "what is different about a setting of a topic", "retention.ms is 1, expected 2"),
    "effective_from": LogField("text", "moment from which a mapping holds, ISO 8601 UTC", "2026-11-29T12:00:00Z"),
    "error": LogField("text", "type of an exception, or its text where that has no content of users", "TimeoutError"),
    "event_id": LogField("text", "id of an event of Stripe", "evt_1"),
    "event_type": LogField("text", "type of an event of Stripe", "checkout.session.completed"),
    "events": LogField("number", "number of events for Lago", 3, True),
    "events_delivered": LogField("number", "events that Lago took in the last minute", 20),
    "events_failed": LogField("number", "events that became dead letters in the last minute", 1),
    "events_put_off": LogField("number", "events that went to the retry topic in the last minute", 1),
    "expected": LogField("number", "offset that should have come next", 4711),
    "expired_usd": LogField("text", "credits that expired, dollars", "5"),
    "failures": LogField("number", "failed attempts before this success", 3),
    "first": LogField("list", "transaction ids of the first events", ["meterbridge-a1b2-0-17"]),
    "from_offset": LogField("number", "offset of the record", 4711),
    "function": LogField("text", "function of the library that failed", "create_org"),
    "further": LogField("number", "repetitions of the line that were not logged", 12),
    "got": LogField("number", "offset up to which records were fetched", 4720),
    "group": LogField("text", "consumer group", "meterbridge-meter"),
    "host": LogField("text", "address that the process listens on", "0.0.0.0"),
    "hours": LogField("number", "by how many hours this machine's clock is ahead", 2),
    "invoice_type": LogField("text", "Lago's type of an invoice", "subscription"),
    "is_disabled": LogField("boolean", "whether the endpoint is sent nothing any more", False),
    "job": LogField("number", "calls that are two reports of one job", 1),
    "known": LogField("number", "late calls that were billed already", 3),
    "lago_id": LogField(
        "text", "Lago's id of the object that a webhook is about", "1a901a90-1a90-1a90-1a90-1a901a901a90"
    ),
    "late": LogField("boolean", "whether a call was billed after the time limit", False),
    "like": LogField("text", "beginning of the lines that were left out", "Unable to request metadata"),
    "limit": LogField("text", "name of a usage limit", "max_api_calls"),
    "method": LogField("text", "HTTP method", "POST"),
    "model": LogField("text", "name of a model", "gpt-4o"),
    "needed": LogField("text", "lowest version that is supported", "v1.39.0"),
    "number": LogField("text", "Lago's number of an invoice", "LAG-1234-001"),
    "of": LogField("text", "logger or event whose lines were left out", "aiokafka.cluster"),
    "offset": LogField("number", "offset of a record", 4711, True),
    "on": LogField("text", "subscriptions that usage was billed on again", "sub_1"),
    "open_s": LogField("number", "seconds for which the circuit breaker was open", 61.5),
    "opened": LogField("list", "partitions that this worker has opened", [0, 1, 2]),
    "org": LogField("text", "Lago's external customer id", "org_acme", True),
    "organization": LogField(
        "text", "Lago organisation by its name in the settings; absent = the default one", "eu", True
    ),
    "partition": LogField("number", "partition of `topic`; without one, of the raw topic", 3, True),
    "path": LogField("text", "path of an HTTP request", "/webhook/litellm/usage"),
    "payment_status": LogField("text", "Lago's payment status of an invoice", "failed"),
    "plan": LogField("text", "code of a plan at Lago", "standard"),
    "problem": LogField("text", "SQLSTATE of the error of Postgres", "57014"),
    "purchase": LogField("text", "id of a purchase of credits", "pur_1"),
    "reason": LogField("text", "stable code of the cause; [errors.md](errors.md)", "kafka_timeout", True),
    "released": LogField("number", "late calls that are billed now", 5),
    "request": LogField("text", "id that Stripe gave the request", "req_1"),
    "reservations": LogField("number", "reservations whose time was over", 2),
    "result": LogField("text", "what became of a call of the canary; [canary.md](canary.md)", "billed"),
    "role": LogField("text", "role of the worker", "meter", True),
    "routes": LogField("list", "two shapes in which one customer's usage came", ["litellm", "lago"]),
    "sealed_usd": LogField("text", "cost of `calls_sealed`, dollars", "12.50"),
    "seconds": LogField("number", "seconds that a stop took or may take", 10.0),
    "see": LogField("text", "page or command that says what to do", "meterbridge held list", True),
    "setting": LogField("text", "setting of the product, or of a topic", "KAFKA_SSL_CAFILE"),
    "so_far": LogField("number", "unreadable records of this table since the start", 1),
    "spans": LogField("number", "spans of traces that were not exported", 512),
    "status": LogField("number or text", "HTTP status of Stripe's answer, or Lago's status of an object", 402),
    "store": LogField("text", "where Lago stores events", "clickhouse"),
    "subscription": LogField("text", "Lago's external subscription id", "sub_org_acme", True),
    "table": LogField("text", "table in memory that follows a topic", "customers"),
    "task": LogField("text", "the task beside the work of the process that ended", "partition_reports"),
    "timezone": LogField("text", "time zone of a customer at Lago that is not known here", "Mars/Olympus"),
    "topic": LogField("text", "topic in Kafka, with its prefix", "litellm.usage.raw", True),
    "total_amount_cents": LogField("number", "total of an invoice of Lago, cents", 1250),
    "type": LogField("text", "type of a webhook of Lago", "subscription.started"),
    "url": LogField("text", "address that the canary posts to", "http://ingress:8080"),
    "usd": LogField("text", "amount in dollars", "0.25", True),
    "user": LogField("text", "LiteLLM's user id", "ada"),
    "variable": LogField("text", "environment variable that is no setting", "WEBHOOK_TOKENS"),
    "version": LogField("text", "version of Lago", "v1.38.0"),
    "waited_s": LogField("number", "seconds since the wait began", 30),
    "waiting": LogField("number or table", "what still waits: a number, or numbers by reason", 12),
    "webhooks": LogField("number", "port of the webhooks", 8080),
    "windows": LogField("number", "number of windows", 200),
}
