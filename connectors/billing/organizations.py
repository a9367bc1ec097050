"""The Lago organisations of a deployment. Finds the organisation that a mapping names, and the organisation of an org
(docs/adr/0044).
"""

from collections.abc import Collection

import msgspec

from connectors.billing.org_records import OrgRecords
from schemas.errors import Rejected
from schemas.organizations import DEFAULT, begins_with, org_key
from streams.core.mapping.held_reasons import UNKNOWN_ORGANIZATION
from streams.core.mapping.set_mapping import MappingRequest

copy = msgspec.structs.replace


class Organizations:
    """The organisations that this deployment has access to.

    Args:
        others: names of the further organisations.
        default_names: names that a mapping may use for the default organisation if there are further ones.
        known: names of all further organisations, including closed ones and those that have orgs and are not configured
            any more. If it is empty, each name in a mapping means the default organisation.
    """

    def __init__(
        self,
        records: OrgRecords,
        others: Collection[str] = (),
        default_names: Collection[str] = (),
        known: Collection[str] | None = None,
    ) -> None:
        self._records = records
        self.others = tuple(others)
        self._default_names = frozenset(default_names)
        self._known = self.others if known is None else known

    def of(self, org_id: str) -> str:
        """Return the organisation of an org; `""` = the default one. The deployment may have no access to it."""
        return self._records.organization_of(org_id)

    def is_in(self, organization: str, org_id: str) -> bool:
        """Return whether the org is in this organisation."""
        return self.of(org_id) == organization

    def placed(self, request: MappingRequest) -> MappingRequest:
        """Add the key of the org to the request.

        Raises:
            Rejected: `unknown_organization`: the request names an organisation that is not configured;
                `other_organization`: the customer's id would be the key of an org in another organisation.
        """
        if not self._known:
            return request
        name = request.lago_organization_id
        if name in self.others:
            placed = copy(request, lago_customer_id=org_key(name, request.lago_customer_id))
        elif name in self._default_names:
            name, placed = DEFAULT, request
        else:
            named = ", ".join([*sorted(self._default_names), *self.others])
            raise Rejected(UNKNOWN_ORGANIZATION, f"lago_organization_id is none of: {named}")
        if name == DEFAULT and begins_with(request.lago_customer_id) in self._known:
            raise Rejected("other_organization", "the id begins with the name of a further Lago organisation and ::")
        if self.of(placed.lago_customer_id) != name:
            raise Rejected("other_organization", "an org of the default organisation has this key already")
        return placed
