"""Decides which LiteLLM customers a credential for some orgs may map: those with one of the credential's id prefixes.

LiteLLM's clients choose customer ids, so an unmapped id belongs to no org until an operator maps it. Without this rule
an org could take the held usage of another org's future customer, or of calls that name no customer.
"""

from collections.abc import Iterable

from schemas.customer_id import UNATTRIBUTED


def may_adopt(orgs: frozenset[str] | None, prefixes: frozenset[str] | None, customer_id: str) -> bool:
    """Return whether the credential may map this customer, for whom no org pays yet.

    Args:
        orgs: the orgs of the credential; None = all.
        prefixes: the credential's id prefixes; None = it has none. Then it may map any id if it is for all orgs,
            otherwise no id.
        customer_id: normalised id.
    """
    if orgs is not None and names_no_customer(customer_id):
        return False
    if prefixes is None:
        return orgs is None
    return any(customer_id.startswith(prefix) for prefix in prefixes)


def names_no_customer(customer_id: str) -> bool:
    """Return whether the id represents calls that name no customer. Only a credential for all orgs may map it."""
    return customer_id.startswith(UNATTRIBUTED)


def prefixes_within(
    inner_orgs: frozenset[str] | None,
    inner: Iterable[str] | None,
    orgs: frozenset[str] | None,
    outer: frozenset[str] | None,
) -> bool:
    """Return whether the inner prefixes allow no id that the outer ones refuse; None as in `may_adopt`."""
    if outer is None and orgs is None:
        return True
    if inner is None:
        return inner_orgs is not None
    return all(any(one.startswith(prefix) for prefix in outer or ()) for one in inner)
