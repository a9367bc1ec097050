"""Time spans in which a customer's usage has one target. Held windows may be merged only within one such span.

A billing period begins with a day of its org's time zone, and the days of every zone begin on a quarter of an hour of
UTC (the IANA time zone database; docs/adr/0018). So no quarter contains the border of a billing period.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

from schemas.customers import CustomerRecord, OrgRecord

QUARTER_US = 900_000_000
NEVER = 1 << 62


def borders(customer: CustomerRecord | None, orgs: Mapping[str, OrgRecord]) -> list[int]:
    """Return the known moments, in order, at which the target of the customer's usage may change.

    These are the beginnings of its mapping versions, `known_from`, and the starts and ends of its orgs' subscriptions.
    """
    if customer is None:
        return []
    moments = {version.effective_from for version in customer.versions}
    if customer.known_from:
        moments.add(customer.known_from)
    for org_id in {version.lago_customer_id for version in customer.versions}:
        if (org := orgs.get(org_id)) is not None:
            moments.update(borders_of(org))
    return sorted(moments)


def borders_of(org: OrgRecord) -> Iterator[int]:
    """Return the known moments at which the org may be billed on another subscription."""
    for period in org.periods:
        yield period.started_at
        if period.terminated_at is not None:
            yield period.terminated_at


def next_border(name: str, customers: Mapping[str, CustomerRecord], orgs: Mapping[str, OrgRecord], now_us: int) -> int:
    """Return when held usage of a customer or an org may get another target without a changed record, microseconds
    since 1970 UTC.

    At that moment a mapping version begins, or a subscription begins or ends. `NEVER` = no such moment is known.
    """
    known = borders(customers.get(name), orgs)
    if (org := orgs.get(name)) is not None:
        known = sorted([*known, *borders_of(org)])
    number = bisect_right(known, now_us)
    return known[number] if number < len(known) else NEVER


def stretch(sorted_borders: Sequence[int], first_us: int, last_us: int) -> tuple[int, int] | None:
    """Return the longest `[start, end)` within a quarter of an hour that contains both moments, and a border only at
    its start.

    None = a border, or the end of the quarter, lies between them.
    """
    start = first_us - first_us % QUARTER_US
    end = start + QUARTER_US
    if last_us >= end:
        return None
    if sorted_borders:
        number = bisect_right(sorted_borders, first_us)
        if number:
            start = max(start, sorted_borders[number - 1])
        if number < len(sorted_borders):
            end = min(end, sorted_borders[number])
    return (start, end) if last_us < end else None


def crossed(sorted_borders: Sequence[int], first_us: int, last_us: int) -> bool:
    """Return whether a border lies after the first moment and not after the last one."""
    return bisect_right(sorted_borders, first_us) != bisect_right(sorted_borders, last_us)
