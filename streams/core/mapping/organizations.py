"""Finds the Lago organisation of an org, and decides whether events may be sent there; pure (docs/adr/0044)."""

from collections.abc import Collection

from schemas.customers import OrgRecord
from schemas.organizations import begins_with
from streams.core.mapping.held_reasons import UNKNOWN_ORGANIZATION


def organization_of(org_id: str, org: OrgRecord | None) -> str:
    """Return the Lago organisation of an org; `""` = the default one.

    It is in the org's record. Without a record the key of the org names it.
    """
    return begins_with(org_id) if org is None else org.organization


def unreachable(organization: str, known: Collection[str]) -> str:
    """Say why nothing can be billed in the organisation; `""` = it is the default one, or one of `known`.

    Usage is never sent to another organisation instead.
    """
    return UNKNOWN_ORGANIZATION if organization and organization not in known else ""
