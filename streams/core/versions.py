"""Which versions of a customer's mapping pay for a call, in the order in which they are asked; pure.

A version covers `[effective_from, next effective_from)`, the first one everything before it too. What nobody could be
billed for is undecided, so it is open to a later version in three cases, and in no other (docs/adr/0019):

- an inactive version, and one for calls of another id kind, covers nothing: the next one that does, does;
- a later version of the same org chooses another of its subscriptions;
- the mapping was deleted before its org ever had a subscription: the one that is mapped next takes what was left. What is
  left is then that one's past: later ones take it only by the same rule.

A version takes over only once it has begun: one that is announced may still be withdrawn, or preceded by another, and what
it had taken would go elsewhere when it comes late. From one org to another is a move: the past stays with the old one,
billed or not.
"""

from collections.abc import Iterator, Mapping

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord

#: Why no version covers a call.
NO_MAPPING = "no_mapping"
INACTIVE = "inactive"
WRONG_KIND = "id_kind_not_mapped"


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
