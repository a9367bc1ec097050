"""Moments are microseconds since 1970 UTC inside the sandbox, and Lago's ISO 8601 texts outside."""

from datetime import UTC, date, datetime, time

from schemas.moments import MAX_US, SECOND_US, to_datetime, to_us

DAY_US = 86_400 * SECOND_US
_DAYS_TO_1970 = 719_468  # from the first of March of the year 0
_ERA = 146_097  # days in 400 years


def iso(us: int | None) -> str | None:
    """Return `2026-11-20T23:03:16Z`, cut to the second: Lago's form for most moments."""
    return None if us is None else _text(us, "seconds")


def iso_ms(us: int | None) -> str | None:
    """Return `2026-11-20T23:03:16.518Z`, cut to the millisecond: Lago's form for events and `started_at`."""
    return None if us is None else _text(us, "milliseconds")


def parse_iso(value: object) -> int | None:
    """Return an ISO 8601 date or moment, in UTC where it has no offset; None when it is neither."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return to_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def day(us: int) -> date:
    """Return the UTC day that contains the moment."""
    return to_datetime(us).date()


def midnight(of: date) -> int:
    """Return the first moment of a UTC day."""
    return to_us(datetime.combine(of, time(), UTC))


def _text(us: int, timespec: str) -> str:
    if 0 <= us < MAX_US:
        return to_datetime(us).isoformat(timespec=timespec)[:-6] + "Z"
    days, rest = divmod(us, DAY_US)
    clock = to_datetime(rest).isoformat(timespec=timespec)[11:-6]
    return f"{_civil(days)}T{clock}Z"


def _civil(days: int) -> str:
    """Return a date outside `datetime`'s years, such as the year 57147 from milliseconds sent as seconds."""
    era, day_of_era = divmod(days + _DAYS_TO_1970, _ERA)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // (_ERA - 1)) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153  # 0 is March
    month = shifted + 3 if shifted < 10 else shifted - 9
    year = era * 400 + year_of_era + (month <= 2)
    return f"{year:04d}-{month:02d}-{day_of_year - (153 * shifted + 2) // 5 + 1:02d}"
