"""Sentences for callers of HTTP about a service behind us that does not answer. They name no address: callers may be
tenants.
"""

from connectors.config.unanswered import unanswered
from schemas.errors import Unavailable

#: Where the address of a service is. The setting's value is not named.
_SETTINGS = {"Lago": "LAGO_API_URL", "Kafka": "KAFKA_BOOTSTRAP_SERVERS", "Postgres": "DATABASE_URL"}


def sentence_of(error: Unavailable) -> str:
    """Return what the caller reads: which service does not answer, the library's message if it has one, and what to do."""
    sentence = unanswered(error.reason, error.detail)
    if not sentence:
        return error.detail
    setting = _SETTINGS.get(sentence.partition(" ")[0], "")
    return f"{sentence}. Send the request again later; if it lasts, the operator must check {setting}."
