"""The orgs' table knows their Lago organisations, also if they are not configured."""

import msgspec

from schemas.customers import OrgRecord
from streams.state.orgs_table import OrgsTable
from tests.fuzz.stored import Stored


def test_an_organisation_is_known_from_its_first_org_on() -> None:
    table = OrgsTable({}, "orgs", lambda: 0.0)

    def take(org_id: str, organization: str | None) -> None:
        value = None if organization is None else msgspec.json.encode(OrgRecord(org_id, organization=organization))
        table.take(0, [Stored(value, org_id.encode())])

    take("acme", "")
    assert not table.organizations
    take("eu::acme", "eu")
    take("us::acme", "us")
    take("x::y", "no name: it has spaces")
    take("eu::acme", None)
    assert table.organizations == {"eu", "us"}
