"""Makes the mapping requests with which one org takes over the customers of another; pure.

Usage that ended before keeps its target. From the earliest moment on, every version that names the old org names the
new one. It keeps its own beginning, plan and activity (streams/core/mapping/set_mapping.py).
"""

from schemas.customers import CustomerRecord, MappingVersion
from streams.core.mapping.set_mapping import REQUESTED, MappingRequest, in_force

#: The end of the last version.
_NEVER = 1 << 62


def repointing(
    record: CustomerRecord, old: str, new: str, earliest_us: int, begins_us: int = 0
) -> list[MappingRequest]:
    """Return the requests in the order of time; empty if no version from `earliest_us` on names `old`.

    Args:
        earliest_us: the earliest moment at which a change may apply (now plus the mapping delay), microseconds since
            1970 UTC.
        begins_us: the moment from which `new` can pay: its subscription's start, microseconds since 1970 UTC.
    """
    first = record.versions.index(in_force(record.versions, earliest_us))
    versions = record.versions[first:]
    ends = [*(version.effective_from for version in versions[1:]), _NEVER]
    requests = []
    for version, ends_us in zip(versions, ends, strict=True):
        at_us = max(version.effective_from, earliest_us, begins_us)
        if version.lago_customer_id == old and not version.deleted and at_us < ends_us:
            requests.append(_request(record.litellm_customer_id, version, new, at_us if at_us > earliest_us else None))
    return requests


def paid_until(record: CustomerRecord, org_id: str, subscriptions: frozenset[str] = frozenset()) -> int | None:
    """Return when the org, or one of the subscriptions, stops paying for the customer's calls, microseconds since 1970
    UTC.

    None = never. 0 = it never paid, as far as the record goes back.
    """
    for number in reversed(range(len(record.versions))):
        version = record.versions[number]
        named = version.lago_customer_id == org_id or version.external_subscription_id in subscriptions
        if named and not version.deleted:
            return record.versions[number + 1].effective_from if number + 1 < len(record.versions) else None
    return 0


def _request(customer_id: str, version: MappingVersion, new: str, effective_from: int | None) -> MappingRequest:
    """Make a request for the new org. Its own subscription pays, even if the old version named a subscription."""
    same = {name: getattr(version, name) for name in REQUESTED}
    changed = same | {"lago_customer_id": new, "external_subscription_id": ""}
    return MappingRequest(**changed, litellm_customer_id=customer_id, effective_from=effective_from)
