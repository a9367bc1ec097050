"""Reads how long an answer asks the client to wait: `Retry-After` in both forms, and Lago Cloud's reset."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: The longest wait that a header can impose, seconds.
ASKED_CAP_S = 60.0


def requested_wait_s(status: int, headers: Mapping[str, str], at: float = 0.0) -> float | None:
    """Return the seconds in `Retry-After`, or for a 429 in `X-RateLimit-Reset` (seconds until the reset); at most 60.

    `Retry-After` is a number of seconds or a date (RFC 9110, 10.2.3). A date is compared with the `Date` header of the
    answer, so that our clock does not matter. Without a `Date` it is compared with `at`, seconds since 1970. The result
    is None if there is no header, or its value is zero, past or invalid. `X-RateLimit-Reset` is read for a 429 only,
    because Lago sends it with every answer.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    retry_after = lower.get("retry-after", "")
    waits = [_seconds(lower.get("x-ratelimit-reset", ""))] if status == 429 else []
    waits += [_seconds(retry_after), _seconds_until(retry_after, lower.get("date", ""), at)]
    return next((min(wait_s, ASKED_CAP_S) for wait_s in waits if wait_s is not None and wait_s > 0), None)


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _seconds_until(text: str, date: str, at: float) -> float | None:
    moment, now = _moment(text), _moment(date)
    if moment is None:
        return None
    return moment - (at if now is None else now)


def _moment(text: str) -> float | None:
    """Parse an HTTP date to seconds since 1970. The form without a zone also means UTC."""
    try:
        moment: datetime = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
