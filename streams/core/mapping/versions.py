"""Which versions of a customer's mapping pay for a call, in the order in which they are asked; pure.

A version covers `[effective_from, next effective_from)`, the first one everything before it too. What nobody could be
billed for is undecided, so it is open to a later version in three cases, and in no other (docs/adr/0019):

- an inactive version, and one for calls of another id kind, covers nothing: the next one that does, does;
- a later version of the same org chooses another of its subscriptions;
- the mapping was deleted before its org ever had a subscription: the one that is mapped next takes what was left. What is
  left is then that one's past: later ones take it only by the same rule.

Old versions are dropped. Usage before `known_from` of the record was decided by one of them, so nothing that is left says who
pays for what comes that late: it is held until a person says it (docs/adr/0018).

A version takes over only once it has begun: one that is announced may still be withdrawn, or preceded by another, and what
it had taken would go elsewhere when it comes late. From one org to another is a move: the past stays with the old one,
billed or not; also once the version that said so is forgotten (`forgotten`).
"""

from collections.abc import Iterator, Mapping

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord

#: Why no version covers a call.
NO_MAPPING = "no_mapping"
INACTIVE = "inactive"
WRONG_KIND = "id_kind_not_mapped"
#: The version of that time is kept no more.
NOT_KEPT = "mapping_not_kept"


def covering(versions: tuple[MappingVersion, ...], at_us: int) -> int:
    """The number of the version that covers the moment, active or not."""
    found = 0
    for number, version in enumerate(versions):
        if version.effective_from <= at_us:
            found = number
    return found


def covers(version: MappingVersion, id_kind: str) -> bool:
    """Whether calls of the kind are billed by the version."""
    return version.is_active and version.id_kind in ("", id_kind)


def payers(
    versions: tuple[MappingVersion, ...],
    at_us: int,
    id_kind: str,
    orgs: Mapping[str, OrgRecord],
    now_us: int | None = None,
) -> Iterator[MappingVersion]:
    """The versions that may bill a call that ended at `at_us`; each is asked if the one before it cannot.

    Args:
        now_us: what has not begun by then takes nothing over, for it may be withdrawn still; None = all have begun.
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
    """Whether the version by which usage of `at_us` is held for the org has left the record: it was the oldest of many,
    or the record was forgotten after a deletion and made anew.

    The first version would then cover what is not its past. A correction takes a version's place, too, but says so.

    Args:
        org_id: who would have paid when it was last looked at; `""` = nobody, so it was no version's.
    """
    versions = record.versions
    if org_id and at_us < record.known_from:
        return True
    if not org_id or at_us >= versions[0].effective_from or any(org_id in one.instead_of for one in versions):
        return False
    payer = next(payers(versions, at_us, id_kind, orgs, now_us), None)
    return payer is None or payer.lago_customer_id != org_id


def uncovered(record: CustomerRecord, at_us: int, now_us: int | None = None) -> str:
    """Why none does. One that is announced is no reason: it may pay once it has begun."""
    first, *later = record.versions[covering(record.versions, at_us) :]
    begun = [first, *(version for version in later if now_us is None or version.effective_from <= now_us)]
    if any(version.is_active for version in begun):
        return WRONG_KIND
    return NO_MAPPING if begun[-1].deleted else INACTIVE


def _had_a_subscription(org_id: str, orgs: Mapping[str, OrgRecord]) -> bool:
    org = orgs.get(org_id)
    return org is not None and bool(org.periods)
