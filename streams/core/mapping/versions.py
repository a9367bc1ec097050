"""Selects the versions of a customer's mapping that may pay for a call, in the order in which they are tried; pure.

A version covers `[effective_from, next effective_from)`; the first version also covers all earlier time. Usage that
cannot be billed to any org is undecided. A later version takes it in these three cases only (docs/adr/0019):

- An inactive version, or one for calls of another id kind, covers nothing: the next version that covers the call takes
  it.
- A later version of the same org names another of its subscriptions.
- The mapping was deleted before its org had any subscription: the version that is mapped next takes what is left. From
  then on it is that version's past, and later ones take it only by the same rule.

Old versions are dropped. Usage before the record's `known_from` was decided by a dropped version, so no remaining
version can say who pays for late usage of that time: it is held until a person decides (docs/adr/0018).

A version takes over only after it has begun. An announced one may be withdrawn or preceded by another, and late usage
would then go elsewhere than what it had taken. A change from one org to another is a move: the past stays with the old
org, billed or not, also when the old version is forgotten (`forgotten`).
"""

from collections.abc import Iterator, Mapping

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord
from streams.core.mapping.held_reasons import INACTIVE, NO_MAPPING, WRONG_KIND


def covering(versions: tuple[MappingVersion, ...], at_us: int) -> int:
    """Return the index of the version that covers the moment, active or not."""
    index = 0
    for number, version in enumerate(versions):
        if version.effective_from <= at_us:
            index = number
    return index


def covers(version: MappingVersion, id_kind: str) -> bool:
    """Return whether the version bills calls of the kind."""
    return version.is_active and version.id_kind in ("", id_kind)


def payers(
    versions: tuple[MappingVersion, ...],
    at_us: int,
    id_kind: str,
    orgs: Mapping[str, OrgRecord],
    now_us: int | None = None,
) -> Iterator[MappingVersion]:
    """Yield the versions that may bill a call that ended at `at_us`. If a version cannot bill it, the caller tries the
    next one.

    Args:
        now_us: a version that begins later takes no undecided usage, because it may be withdrawn; None = all have
            begun.
    """
    holder: str | None = None
    named = deleted = False
    first = covering(versions, at_us)
    for version in versions[first:]:
        if now_us is not None and version.effective_from > now_us and version is not versions[first]:
            return
        if version.deleted and holder is not None:
            deleted = True
        if not covers(version, id_kind):
            continue
        if holder is not None and version.lago_customer_id != holder:
            if not deleted or named or _had_a_subscription(holder, orgs):
                return
            named = False
        holder, deleted = version.lago_customer_id, False
        named = named or bool(version.external_subscription_id)
        yield version


def forgotten(
    record: CustomerRecord,
    org_id: str,
    at_us: int,
    id_kind: str,
    orgs: Mapping[str, OrgRecord],
    now_us: int | None = None,
) -> bool:
    """Return whether the version by which usage of `at_us` is held for the org has left the record.

    Either it was dropped as the oldest of many, or the whole record was forgotten after a deletion and made again. The
    first version must not cover usage that is not its past. A correction takes a version's place, too, but lists its
    org in `instead_of`.

    Args:
        org_id: the org that would have paid at the last look; `""` = none.
    """
    versions = record.versions
    if org_id and at_us < record.known_from:
        return True
    if not org_id or at_us >= versions[0].effective_from or any(org_id in version.instead_of for version in versions):
        return False
    payer = next(payers(versions, at_us, id_kind, orgs, now_us), None)
    return payer is None or payer.lago_customer_id != org_id


def uncovered(record: CustomerRecord, at_us: int, now_us: int | None = None) -> str:
    """Say why no version covers the call. An announced version counts only after it has begun."""
    first, *later = record.versions[covering(record.versions, at_us) :]
    begun = [first, *(version for version in later if now_us is None or version.effective_from <= now_us)]
    if any(version.is_active for version in begun):
        return WRONG_KIND
    return NO_MAPPING if begun[-1].deleted else INACTIVE


def _had_a_subscription(org_id: str, orgs: Mapping[str, OrgRecord]) -> bool:
    org = orgs.get(org_id)
    return org is not None and bool(org.periods)
