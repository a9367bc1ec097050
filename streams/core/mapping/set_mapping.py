"""How a mapping request changes a customer's record, without touching what usage has been decided by.

Workers learn of a change within the lead, so everything that ended before `now + lead` may be decided
already: no request moves it to another target (docs/adr/0003). A version covers
`[effective_from, next effective_from)`, the first one everything before it too (streams/core/mapping/resolve.py).
"""

from bisect import bisect_right
from collections.abc import Collection

import msgspec

from schemas.customers import CustomerRecord, MappingVersion
from schemas.errors import Rejected
from schemas.moments import HOUR_US, SECOND_US
from streams.core.mapping.correction import corrected

#: Older versions beyond this number go, once nothing is decided by them that a topic still holds: raw and rejected usage
#: is kept for 30 days (schemas/topics.py). Beyond the second number they go once nothing inside `keep_us` is.
KEPT_VERSIONS = 8
MAX_VERSIONS = 64
KEPT_US = 31 * 24 * HOUR_US
KEEP_US = 48 * HOUR_US
#: No lead is shorter, whatever `MAPPING_LEAD_SECONDS` says.
MIN_LEAD_S = 1.0

TOO_EARLY = "effective_from_too_early"
TOO_MANY = "too_many_versions"

copy = msgspec.structs.replace


class MappingRequest(msgspec.Struct, frozen=True):
    """What an operator asks for; the fields are those of `MappingVersion`.

    Fields:
        litellm_customer_id: normalised.
        effective_from: microseconds since 1970 UTC; None = as soon as the lead allows, see `takes_effect`.
        correct: whether it is a correction; None = the mistake is to be seen (streams/core/mapping/correction.py).
    """

    litellm_customer_id: str
    lago_customer_id: str
    lago_organization_id: str
    billing_plan: str = "ai_basic"
    is_active: bool = True
    external_subscription_id: str = ""
    id_kind: str = ""
    effective_from: int | None = None
    correct: bool | None = None


class EndMappingRequest(msgspec.Struct, frozen=True):
    """That a mapping is to end.

    Fields:
        deleted: it is to be shown no more, rather than as inactive.
        effective_from: as `MappingRequest`.
    """

    deleted: bool = False
    effective_from: int | None = None


def remap(
    record: CustomerRecord | None,
    request: MappingRequest,
    now_us: int,
    lead_us: int,
    keep_us: int = KEEP_US,
    unknown: Collection[str] = (),
) -> CustomerRecord:
    """The customer's record after `request`; `record` itself where it already says so: asking twice is asking once.

    Args:
        keep_us: how far back usage is decided by its own version at least, however many versions there are.
        unknown: orgs that nobody knows: a version that names one was a mistake, see `corrected`.

    Raises:
        Rejected: `correction_begins_elsewhere`, see there;
            `effective_from_too_early`, before `now + lead` for a customer that has a mapping, unless it is before all
            that the record tells of (`known_from`): what comes so late is held, and the request says who pays for it;
            `too_many_versions`, above `MAX_VERSIONS` that are still needed.
    """
    earliest = _whole_second_from(now_us + lead_us)
    begins = takes_effect(request, now_us, lead_us, record)
    version = _version(request, begins, now_us)
    if record is None:
        return CustomerRecord(request.litellm_customer_id, (version,), now_us, now_us)
    wrong = corrected_by(record, request, now_us, lead_us, unknown)
    if wrong is not None:
        right = copy(version, effective_from=wrong.effective_from, soon=wrong.soon, instead_of=wrong.instead_of)
        if right == copy(wrong, updated_at=right.updated_at):
            return record
        replaced = dict.fromkeys([*wrong.instead_of, wrong.lago_customer_id])
        right = copy(right, instead_of=tuple(replaced)[-MAX_VERSIONS:])
        versions = tuple(right if other is wrong else other for other in record.versions)
        return copy(record, versions=versions, updated_at=_later(record, now_us))
    if _already_says(record, version, earliest):
        return record
    if begins < record.known_from:
        return _remembered(record, version, now_us)
    if begins < earliest:
        raise Rejected(TOO_EARLY, "usage before now + MAPPING_LEAD_SECONDS may have been decided already")
    later = [other for other in record.versions if other.effective_from > begins]
    after = _needed(record, [*_decided(record, begins), version, *later], now_us, keep_us)
    if len(after.versions) > MAX_VERSIONS:
        raise Rejected(TOO_MANY, f"more than {MAX_VERSIONS} versions are still needed")
    return copy(after, updated_at=_later(record, now_us))


def corrected_by(
    record: CustomerRecord | None, request: MappingRequest, now_us: int, lead_us: int, unknown: Collection[str] = ()
) -> MappingVersion | None:
    """The version that the request takes the place of; None where it changes what comes after. Raises: `corrected`."""
    there = None if record is None else in_force(record.versions, soonest(record, now_us, lead_us))
    asked = request.effective_from
    begins = None if asked is None else asked - asked % SECOND_US
    return corrected(record, there, correct=request.correct, effective_from=begins, unknown=unknown)


def unmap(
    record: CustomerRecord, ending: EndMappingRequest, now_us: int, lead_us: int, keep_us: int = KEEP_US
) -> CustomerRecord:
    """The customer's record once nobody pays from `ending` on, whatever was announced for later; `record` itself
    where it already says so. Usage from there on is held, and goes to whoever is mapped next; usage before it
    goes where it went, however late it comes.

    Raises:
        Rejected: `effective_from_too_early`. Never for too many versions: it must always be possible to stop.
    """
    earliest = _whole_second_from(now_us + lead_us)
    begins = takes_effect(ending, now_us, lead_us, record)
    ended = in_force(record.versions, begins)
    if ended is record.versions[-1] and not ended.is_active and ended.deleted >= ending.deleted:
        return record
    if begins < earliest:
        raise Rejected(TOO_EARLY, "usage before now + MAPPING_LEAD_SECONDS may have been decided already")
    soon = ending.effective_from is None
    end = copy(ended, effective_from=begins, is_active=False, deleted=ending.deleted, updated_at=now_us, soon=soon)
    after = _needed(record, [*_decided(record, begins), end], now_us, keep_us)
    return copy(after, updated_at=_later(record, now_us))


def forgettable(record: CustomerRecord, until_us: int) -> bool:
    """Nobody has been mapped since before `until_us`."""
    last = record.versions[-1]
    return last.deleted and max(last.effective_from, last.updated_at) < until_us


def takes_effect(
    request: MappingRequest | EndMappingRequest, now_us: int, lead_us: int, record: CustomerRecord | None = None
) -> int:
    """The whole second from which the request's version applies: the asked one rounded down, or `soonest`. An ending
    waits for no version that was announced: it takes their place.

    Args:
        record: the customer's before the request; None where there is none.
    """
    if request.effective_from is None:
        ends = isinstance(request, EndMappingRequest)
        return _earliest(record, now_us, lead_us) if ends else soonest(record, now_us, lead_us)
    return request.effective_from - request.effective_from % SECOND_US


def soonest(record: CustomerRecord | None, now_us: int, lead_us: int) -> int:
    """The whole second, in microseconds since 1970 UTC, from which a request without a beginning applies.

    Never before that of the request that was written before: where that one's process has the faster clock, or had
    a longer lead, its version would else pass for one announced for later, and win over what was asked after it.
    """
    begun = [] if record is None else [version.effective_from for version in record.versions if version.soon]
    return max([_earliest(record, now_us, lead_us), *begun])


def _earliest(record: CustomerRecord | None, now_us: int, lead_us: int) -> int:
    return _whole_second_from(_later(record, now_us) + lead_us)


def shown(versions: tuple[MappingVersion, ...], at_us: int) -> MappingVersion | None:
    """What somebody who asks at `at_us` is told: the version in force; where that is a deleted one, the one announced
    after it, which also gets what is held meanwhile. None where nobody is mapped."""
    covering = versions[_covering(versions, at_us) :]
    return next((version for version in covering if not version.deleted), None)


def in_force(versions: tuple[MappingVersion, ...], at_us: int) -> MappingVersion:
    """The version that covers `at_us`, active or not."""
    return versions[_covering(versions, at_us)]


def _covering(versions: tuple[MappingVersion, ...], at_us: int) -> int:
    if versions[-1].effective_from <= at_us:  # nearly always, and asked for every customer at once
        return len(versions) - 1
    return max(0, bisect_right(versions, at_us, key=lambda version: version.effective_from) - 1)


def _already_says(record: CustomerRecord, version: MappingVersion, earliest: int) -> bool:
    """What `version` says is in force from its beginning on, and still when a change could apply at the earliest; or it
    is the one that was said to be before all that are kept."""
    versions, begins = record.versions, version.effective_from
    if begins < record.known_from:
        return False
    there = _covering(versions, begins)
    said = begins == record.known_from == versions[0].effective_from
    if begins < earliest and there != _covering(versions, earliest) and not said:
        return False
    known = versions[there]
    return known == copy(
        version,
        effective_from=known.effective_from,
        updated_at=known.updated_at,
        soon=known.soon,
        instead_of=known.instead_of,
    )


def _needed(record: CustomerRecord, versions: list[MappingVersion], now_us: int, keep_us: int) -> CustomerRecord:
    """The record with all versions but old ones, see `KEPT_VERSIONS`. What is held for their orgs stays theirs, and what
    comes later than they are kept is held, unless the next one says the same (streams/core/mapping/versions.py)."""
    known_from = record.known_from
    for most, kept_us in ((KEPT_VERSIONS, max(KEPT_US, keep_us)), (MAX_VERSIONS, keep_us)):
        while len(versions) > most and versions[1].effective_from <= now_us - kept_us:
            if _decides(versions[0]) != _decides(versions[1]):
                known_from = versions[1].effective_from
            del versions[0]
    return copy(record, versions=tuple(versions), known_from=known_from)


def _decides(version: MappingVersion) -> tuple[str, str, bool, str, bool]:
    """What makes a version bill usage elsewhere than another one."""
    of = version
    return of.lago_customer_id, of.external_subscription_id, of.is_active, of.id_kind, of.deleted


def _remembered(record: CustomerRecord, version: MappingVersion, now_us: int) -> CustomerRecord:
    """The record with a version before all that are kept: nothing that comes so late is decided, for all of it is held."""
    if len(record.versions) >= MAX_VERSIONS:
        raise Rejected(TOO_MANY, f"more than {MAX_VERSIONS} versions are still needed")
    versions = (copy(version, soon=False), *record.versions)
    return copy(record, versions=versions, known_from=version.effective_from, updated_at=_later(record, now_us))


def _decided(record: CustomerRecord, until: int) -> list[MappingVersion]:
    """The versions before `until`, deciding usage before it as they do now, whatever comes at `until`.

    What the first version covers before its own beginning would be moved by a version at `until`, and is pinned. A pause
    that lasts until then is not: no version after it has begun, so it is nobody's yet (streams/core/mapping/versions.py).
    """
    kept = [version for version in record.versions if version.effective_from < until]
    if not kept:
        begins = min(record.created_at - record.created_at % SECOND_US, until - SECOND_US)
        kept = [copy(record.versions[0], effective_from=begins)]
    return kept


def _version(request: MappingRequest, begins: int, now_us: int) -> MappingVersion:
    return MappingVersion(
        begins,
        request.lago_customer_id,
        request.lago_organization_id,
        request.billing_plan,
        request.is_active,
        request.external_subscription_id,
        request.id_kind,
        now_us,
        soon=request.effective_from is None,
    )


def _later(record: CustomerRecord | None, now_us: int) -> int:
    """Now, but never before the record's last change: that is by the clock of whichever process made it."""
    return now_us if record is None else max(now_us, record.updated_at)


def _whole_second_from(us: int) -> int:
    return -(-us // SECOND_US) * SECOND_US
