"""Sentences for callers of HTTP about a service behind us that does not answer. They name no address: callers may be
tenants.
"""

from typing import Final

from schemas.errors import Unavailable

_SENTENCES: Final = {
    "connect": "Lago does not answer",
    "timeout": "Lago does not answer in time",
    "no_answer": "Lago closed the connection without an answer",
    "kafka_unavailable": "Kafka does not answer",
    "kafka_timeout": "Kafka does not confirm the record",
    "postgres_away": "Postgres does not answer",
    "postgres_slow": "Postgres does not answer in time",
}


def sentence_of(error: Unavailable) -> str:
    """Return what the caller reads: which service does not answer, the library's message if it has one, and what to do.

    The name of an exception, which some errors have as their detail, is no message: the reason says the same.
    """
    service = _SENTENCES.get(error.reason)
    if service is None:
        return error.detail
    if error.reason.startswith("kafka_") and error.detail.isupper() and not error.detail.startswith("_"):
        service = "Kafka does not take the record"  # it answered with a code; librdkafka's own codes begin with _
    is_name = error.detail.isidentifier() and not error.detail.isupper()
    cause = f" ({error.detail})" if error.detail and not is_name else ""
    return f"{service}{cause}. Send the request again later."
