"""Makes the records of mappings and orgs again from their rows in Postgres."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.moments import parse_us, to_us
from streams.core.mapping.set_mapping import KEPT_VERSIONS

#: The columns that `customer_of` and `org_of` read.
CUSTOMER_COLUMNS: Final = "litellm_customer_id, versions::text AS versions, created_at, updated_at"
ORG_COLUMNS: Final = (
    "org_id, name, email, plan, currency, status, subscription_id, limits::text AS limits, periods::text AS periods, "
    "updated_at, organization"
)
_members = msgspec.json.Decoder(list[dict[str, Any]]).decode


def customer_of(row: Mapping[str, Any]) -> CustomerRecord:
    """Return the record of a row of `customer_records`."""
    versions = tuple(
        msgspec.convert(version | _moments(version, "effective_from", "updated_at"), MappingVersion)
        for version in _members(row["versions"])
    )
    # If a customer has many versions, earlier ones may have been dropped, and the tables do not show it. Then usage
    # before the first version waits for a person, because it could be billed to the wrong org.
    known_from = versions[0].effective_from if len(versions) >= KEPT_VERSIONS else 0
    moments = to_us(row["created_at"]), to_us(row["updated_at"])
    return CustomerRecord(row["litellm_customer_id"], versions, *moments, known_from)


def org_of(row: Mapping[str, Any]) -> OrgRecord:
    """Return the record of a row of `organisations`. It has no `unusable`, because the table has not."""
    periods = tuple(
        msgspec.convert(period | _moments(period, "started_at", "terminated_at"), Period)
        for period in _members(row["periods"])
    )
    words = {name: row[name] for name in ("name", "email", "plan", "currency", "status", "subscription_id")}
    return OrgRecord(
        row["org_id"],
        periods=periods,
        updated_at=to_us(row["updated_at"]),
        limits=msgspec.json.decode(row["limits"], type=dict[str, int]),
        organization=row["organization"],
        **words,
    )


def _moments(row: Mapping[str, Any], *names: str) -> dict[str, int | None]:
    return {name: None if row[name] is None else parse_us(row[name]) for name in names}
