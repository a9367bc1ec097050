"""Says in words which service did not answer, and how. Commands read it with an address; callers of HTTP without one, because they
may be tenants.
"""

from typing import Final

from schemas.errors import Unavailable

#: A listener that speaks another protocol looks like one that is away.
KAFKA_RUNS: Final = "is it running, and is KAFKA_SECURITY_PROTOCOL the one of this port?"
_SENTENCES: Final = {
    "connect": "Lago does not answer",
    "timeout": "Lago does not answer in time",
    "no_answer": "Lago closed the connection without an answer",
    "kafka_unavailable": "Kafka does not answer",
    "kafka_timeout": "Kafka does not confirm the record",
    "postgres_away": "Postgres does not answer",
    "postgres_slow": "Postgres does not answer in time",
}
#: Where the address of a service is. The setting's value is not named to callers of HTTP.
_SETTINGS: Final = {"Lago": "LAGO_API_URL", "Kafka": "KAFKA_BOOTSTRAP_SERVERS", "Postgres": "DATABASE_URL"}
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
        place: the address of the service with its setting, of which the sentence then asks whether it runs; `""` = it is not
            named.
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
    runs = KAFKA_RUNS if reason.startswith("kafka_") else "is it running?"
    question = f": {runs}" if place and "does not answer" in service else ""
    return f"{service}{f' at {place}' if place else ''}{f' ({cause})' if cause else ''}{question}"


def sentence_of(error: Unavailable) -> str:
    """Return what a caller of HTTP reads: which service does not answer, the library's message if it has one, and what to do.
    It names no address: callers may be tenants.
    """
    sentence = unanswered(error.reason, error.detail)
    if not sentence:
        return error.detail
    setting = _SETTINGS.get(sentence.partition(" ")[0], "")
    return f"{sentence}. Send the request again later; if it lasts, the operator must check {setting}."
