"""Says in words which service did not answer, and how. Callers of HTTP read it without an address, commands with one."""

from typing import Final

_SENTENCES: Final = {
    "connect": "Lago does not answer",
    "timeout": "Lago does not answer in time",
    "no_answer": "Lago closed the connection without an answer",
    "kafka_unavailable": "Kafka does not answer",
    "kafka_timeout": "Kafka does not confirm the record",
    "postgres_away": "Postgres does not answer",
    "postgres_slow": "Postgres does not answer in time",
}
#: What the errors of a connection are called where people read them; `""`: the sentence says it.
_CAUSES: Final = {
    "ConnectionRefusedError": "connection refused",
    "ConnectionResetError": "connection closed",
    "gaierror": "unknown host name",
    "no answer in time": "",
}


def unanswered(reason: str, detail: str, place: str = "") -> str:
    """Return a sentence without its full stop about a request that was not answered, such as `Lago does not answer in time
    (HTTP 504)`; `""` if an error with this reason is another one.

    Args:
        detail: of the error. The name of an exception is no message: the reason says the same.
        place: the address of the service with its setting; `""` = it is not named.
    """
    service = _SENTENCES.get(reason)
    if reason == "litellm_db" and detail in _CAUSES:  # any other detail says what is wrong in the database
        service = "LiteLLM's database does not answer"
    if service is None:
        return ""
    is_name = detail.isidentifier() and not detail.isupper()
    if reason.startswith("kafka_") and detail.isupper() and not detail.startswith("_"):
        service = "Kafka does not take the record"  # it answered with a code; librdkafka's own codes begin with _
    cause = _CAUSES.get(detail, "" if is_name else detail)
    return f"{service}{f' at {place}' if place else ''}{f' ({cause})' if cause else ''}"
