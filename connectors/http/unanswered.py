"""Sentences for callers of HTTP about a service behind us that does not answer. They name no address: callers may be
tenants.
"""

from connectors.config.unanswered import unanswered
from schemas.errors import Unavailable


def sentence_of(error: Unavailable) -> str:
    """Return what the caller reads: which service does not answer, the library's message if it has one, and what to do."""
    sentence = unanswered(error.reason, error.detail)
    return f"{sentence}. Send the request again later." if sentence else error.detail
