"""Which LiteLLM customers a credential that is limited to orgs may map: those under the id prefixes that it was given.

A customer id is chosen by clients of LiteLLM, so an unmapped id is nobody's until an operator says whose it is. Without
this rule an org could take held usage of another's future customer, or of calls that name nobody.
"""

from collections.abc import Iterable

from schemas.customer_id import UNATTRIBUTED


def may_adopt(orgs: frozenset[str] | None, prefixes: frozenset[str] | None, customer_id: str) -> bool:
    """Whether the credential may map this customer, whom none of its orgs pays for yet.

    Args:
        orgs: the only orgs it is for; None = all.
        prefixes: how the ids begin that it was given; None = none were named: any id for all orgs, no id for some.
        customer_id: normalised.
    """
    if orgs is not None and is_of_nobody(customer_id):
        return False
    if prefixes is None:
        return orgs is None
    return any(customer_id.startswith(prefix) for prefix in prefixes)


def is_of_nobody(customer_id: str) -> bool:
    """It stands for calls that name no customer: only a credential for all orgs says who pays for those."""
    return customer_id.startswith(UNATTRIBUTED)


def prefixes_within(
    inner_orgs: frozenset[str] | None,
    inner: Iterable[str] | None,
    orgs: frozenset[str] | None,
    outer: frozenset[str] | None,
) -> bool:
    """Whether the inner prefixes allow no id that the outer ones do not; see `may_adopt` for None."""
    if outer is None and orgs is None:
        return True
    if inner is None:
        return inner_orgs is not None
    return all(any(one.startswith(prefix) for prefix in outer or ()) for one in inner)
