"""Computes how long to wait before a failed request is sent again."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

#: First and longest wait between two attempts, seconds.
BASE_S: Final = 0.5
LONGEST_WAIT_S: Final = 5.0


def backoff_s(attempt: int, random: float) -> float:
    """Return the seconds to wait after a failed attempt: exponential with full jitter, at most `LONGEST_WAIT_S`.

    Args:
        attempt: number of the failed attempt, from 1.
        random: a random number in `[0, 1)`.
    """
    return random * min(LONGEST_WAIT_S, BASE_S * 2.0 ** min(attempt - 1, 32))


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float:
    """Return the seconds that the header `Retry-After` asks for (RFC 9110, 10.2.3), in `[0, LONGEST_WAIT_S]`.

    Args:
        headers: of the response; names in lower case are found.
        now_s: the time now, seconds since 1970. A date is compared with the response's own `Date` if it has one.

    Returns:
        0 for no header, for a moment that has passed, and for a text that is neither seconds nor a date.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_WAIT_S)
    until, now = _seconds(text), _seconds(headers.get("date", ""))
    if until is None:
        return 0.0
    return min(max(0.0, until - (now_s if now is None else now)), LONGEST_WAIT_S)


def _seconds(date: str) -> float | None:
    """Return an HTTP date as seconds since 1970; None = the text is not a date."""
    try:
        moment: datetime = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
