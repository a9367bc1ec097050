"""Applies a mapping request to a customer's record without a change of earlier decisions.

Workers see a change within the mapping delay (`lead`). So usage that ended before `now + lead` may be decided already,
and no request moves it to another target (docs/adr/0003). A version covers `[effective_from, next effective_from)`; the
first version also covers all earlier time (streams/core/mapping/resolve.py).
"""

from bisect import bisect_right
from collections.abc import Collection

import msgspec

from schemas.customers import CustomerRecord, MappingVersion
from schemas.errors import Rejected
from schemas.moments import HOUR_US, SECOND_US
from streams.core.mapping.correction import corrected

#: Limits above which old versions are dropped. Above `KEPT_VERSIONS`, versions that decide about no usage in a topic
#: are dropped (raw and rejected usage is kept for 30 days, schemas/topics.py). Above `MAX_VERSIONS`, versions that
#: decide about no usage within `keep_us` are dropped.
KEPT_VERSIONS = 8
MAX_VERSIONS = 64
KEPT_US = 31 * 24 * HOUR_US
KEEP_US = 48 * HOUR_US
#: The shortest mapping delay, even if `MAPPING_DELAY_SECONDS` is lower.
MIN_MAPPING_DELAY_S = 1.0

TOO_EARLY = "effective_from_too_early"
TOO_MANY = "too_many_versions"
_TOO_EARLY = "effective_from is too early: usage before now + MAPPING_DELAY_SECONDS may be billed already. Leave it out, or give a later one"

copy = msgspec.structs.replace


class MappingRequest(msgspec.Struct, frozen=True):
    """The request to map a customer; for the fields see `MappingVersion`.

    Fields:
        litellm_customer_id: normalised id.
        effective_from: microseconds since 1970 UTC; None = as soon as the mapping delay allows, see `takes_effect`.
        correct: whether it corrects the current version; None = the version decides, see
            streams/core/mapping/correction.py.
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


#: The fields that a version has from its request, unchanged.
REQUESTED = tuple(
    name
    for name in MappingRequest.__struct_fields__
    if name in MappingVersion.__struct_fields__ and name != "effective_from"
)


class EndMappingRequest(msgspec.Struct, frozen=True):
    """The request to end a mapping.

    Fields:
        deleted: whether the mapping disappears from lists, instead of being shown as inactive.
        effective_from: as in `MappingRequest`.
    """

    deleted: bool = False
    effective_from: int | None = None


def set_mapping(
    record: CustomerRecord | None,
    request: MappingRequest,
    now_us: int,
    mapping_delay_us: int,
    keep_us: int = KEEP_US,
    unknown: Collection[str] = (),
) -> CustomerRecord:
    """Return the customer's record after `request`. A repeated request returns `record` itself.

    The effect of a version that begins at `begins` on the record (`earliest` = now + mapping delay):

    | case, the first that applies              | result                                          |
    |-------------------------------------------|-------------------------------------------------|
    | no record                                 | a record with this one version                  |
    | corrects the version in force             | takes its place (`corrected_by`)                |
    | the record says the same (`_already_says`)| `record` itself                                 |
    | begins < known_from                       | stands before all versions (`_remembered`)      |
    | known_from <= begins < earliest           | refused: effective_from_too_early               |
    | begins >= earliest                        | follows the versions before it (`_decided`)     |

    Args:
        now_us: microseconds since 1970 UTC.
        mapping_delay_us: `MAPPING_DELAY_SECONDS`, microseconds.
        keep_us: for this time before now, every version is kept, even if there are many, microseconds.
        unknown: orgs that Lago does not know. A version that names such an org was a mistake, see `corrected`.

    Raises:
        Rejected: `correction_begins_elsewhere`, see `corrected`; `effective_from_too_early`; `too_many_versions`: more
            than `MAX_VERSIONS` are still needed.
    """
    earliest = _whole_second_from(now_us + mapping_delay_us)
    begins = takes_effect(request, now_us, mapping_delay_us, record)
    version = _version(request, begins, now_us)
    if record is None:
        return CustomerRecord(request.litellm_customer_id, (version,), now_us, now_us)
    wrong = corrected_by(record, request, now_us, mapping_delay_us, unknown)
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
        raise Rejected(TOO_EARLY, _TOO_EARLY)
    later = [other for other in record.versions if other.effective_from > begins]
    after = _needed(record, [*_decided(record, begins), version, *later], now_us, keep_us)
    if len(after.versions) > MAX_VERSIONS:
        raise Rejected(TOO_MANY, f"more than {MAX_VERSIONS} versions are still needed")
    return copy(after, updated_at=_later(record, now_us))


def corrected_by(
    record: CustomerRecord | None,
    request: MappingRequest,
    now_us: int,
    mapping_delay_us: int,
    unknown: Collection[str] = (),
) -> MappingVersion | None:
    """Return the version that the request replaces; None if the request adds a version. Raises: see `corrected`."""
    there = None if record is None else in_force(record.versions, earliest_effective(record, now_us, mapping_delay_us))
    begins_us = request.effective_from
    begins = None if begins_us is None else begins_us - begins_us % SECOND_US
    return corrected(record, there, correct=request.correct, effective_from=begins, unknown=unknown)


def end_mapping(
    record: CustomerRecord, ending: EndMappingRequest, now_us: int, mapping_delay_us: int, keep_us: int = KEEP_US
) -> CustomerRecord:
    """Return the customer's record without a paying org from `ending` on. Versions that were announced for later are
    removed.

    A repeated request returns `record` itself. Usage after the end is held for the org that is mapped next. Usage
    before the end keeps its target, even if it comes late.

    Raises:
        Rejected: `effective_from_too_early`. It is never refused for too many versions, because an operator must always
            be able to end a mapping.
    """
    earliest = _whole_second_from(now_us + mapping_delay_us)
    begins = takes_effect(ending, now_us, mapping_delay_us, record)
    ended = in_force(record.versions, begins)
    if ended is record.versions[-1] and not ended.is_active and ended.deleted >= ending.deleted:
        return record
    if begins < earliest:
        raise Rejected(TOO_EARLY, _TOO_EARLY)
    soon = ending.effective_from is None
    end = copy(ended, effective_from=begins, is_active=False, deleted=ending.deleted, updated_at=now_us, soon=soon)
    after = _needed(record, [*_decided(record, begins), end], now_us, keep_us)
    return copy(after, updated_at=_later(record, now_us))


def forgettable(record: CustomerRecord, until_us: int) -> bool:
    """Return whether the last mapping was deleted before `until_us`, microseconds since 1970 UTC."""
    last = record.versions[-1]
    return last.deleted and max(last.effective_from, last.updated_at) < until_us


def takes_effect(
    request: MappingRequest | EndMappingRequest,
    now_us: int,
    mapping_delay_us: int,
    record: CustomerRecord | None = None,
) -> int:
    """Return the second from which the request's version applies: the requested one rounded down, or
    `earliest_effective`.

    An end replaces announced versions, so it does not wait for them.

    Args:
        record: the customer's record before the request; None = there is none.
    """
    if request.effective_from is None:
        ends = isinstance(request, EndMappingRequest)
        return (
            _earliest(record, now_us, mapping_delay_us)
            if ends
            else earliest_effective(record, now_us, mapping_delay_us)
        )
    return request.effective_from - request.effective_from % SECOND_US


def earliest_effective(record: CustomerRecord | None, now_us: int, mapping_delay_us: int) -> int:
    """Return the whole second from which a request without a beginning applies, microseconds since 1970 UTC.

    It is never before the beginning of an earlier request of that kind. Otherwise a version from a process with a
    faster clock or a longer mapping delay would count as announced for later, and would replace this newer one.
    """
    begun = [] if record is None else [version.effective_from for version in record.versions if version.soon]
    return max([_earliest(record, now_us, mapping_delay_us), *begun])


def _earliest(record: CustomerRecord | None, now_us: int, mapping_delay_us: int) -> int:
    return _whole_second_from(_later(record, now_us) + mapping_delay_us)


def shown(versions: tuple[MappingVersion, ...], at_us: int) -> MappingVersion | None:
    """Return the version to show at `at_us`; None if the customer has no mapping.

    It is the current version. If that one is deleted, it is the version announced after it, which also gets the usage
    that is held meanwhile.
    """
    covering = versions[_covering(versions, at_us) :]
    return next((version for version in covering if not version.deleted), None)


def in_force(versions: tuple[MappingVersion, ...], at_us: int) -> MappingVersion:
    """Return the version that covers `at_us`, active or not."""
    return versions[_covering(versions, at_us)]


def _covering(versions: tuple[MappingVersion, ...], at_us: int) -> int:
    if versions[-1].effective_from <= at_us:  # the usual case; the fold calls this for every customer
        return len(versions) - 1
    return max(0, bisect_right(versions, at_us, key=lambda version: version.effective_from) - 1)


def _already_says(record: CustomerRecord, version: MappingVersion, earliest: int) -> bool:
    """Return whether the record says the same as `version`.

    This is true if its content applies from its beginning until the earliest possible change, or if it is the version
    that was added before all others.
    """
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
    """Return the record without versions that are no longer needed, see `KEPT_VERSIONS`.

    Usage that is held for the org of a dropped version keeps this org. Usage of its time that comes later is held,
    unless the next version decides the same (streams/core/mapping/versions.py).
    """
    known_from = record.known_from
    for most, kept_us in ((KEPT_VERSIONS, max(KEPT_US, keep_us)), (MAX_VERSIONS, keep_us)):
        while len(versions) > most and versions[1].effective_from <= now_us - kept_us:
            if _decides(versions[0]) != _decides(versions[1]):
                known_from = versions[1].effective_from
            del versions[0]
    return copy(record, versions=tuple(versions), known_from=known_from)


def _decides(version: MappingVersion) -> MappingVersion:
    """Return the version without the fields that do not decide who is billed. If the results of two versions are equal,
    both bill usage to the same subscription.
    """
    return copy(
        version, effective_from=0, updated_at=0, soon=False, instead_of=(), billing_plan="", lago_organization_id=""
    )


def _remembered(record: CustomerRecord, version: MappingVersion, now_us: int) -> CustomerRecord:
    """Return the record with a version before all others. Usage that old is still undecided, because all of it is held."""
    if len(record.versions) >= MAX_VERSIONS:
        raise Rejected(TOO_MANY, f"more than {MAX_VERSIONS} versions are still needed")
    versions = (copy(version, soon=False), *record.versions)
    return copy(record, versions=versions, known_from=version.effective_from, updated_at=_later(record, now_us))


def _decided(record: CustomerRecord, until: int) -> list[MappingVersion]:
    """Return the versions before `until`. They decide about earlier usage in the same way as now.

    The first version also covers the time before its own beginning. A version at `until` would take that time, so the
    first one gets an earlier beginning. A pause that lasts until then needs no such version, because its usage is
    undecided (streams/core/mapping/versions.py).
    """
    kept = [version for version in record.versions if version.effective_from < until]
    if not kept:
        begins = min(record.created_at - record.created_at % SECOND_US, until - SECOND_US)
        kept = [copy(record.versions[0], effective_from=begins)]
    return kept


def _version(request: MappingRequest, begins: int, now_us: int) -> MappingVersion:
    said = {name: getattr(request, name) for name in REQUESTED}
    return MappingVersion(**said, effective_from=begins, updated_at=now_us, soon=request.effective_from is None)


def _later(record: CustomerRecord | None, now_us: int) -> int:
    """Return now, or the time of the record's last change if it is later, because a process with another clock may have
    made it.
    """
    return now_us if record is None else max(now_us, record.updated_at)


def _whole_second_from(us: int) -> int:
    return -(-us // SECOND_US) * SECOND_US
