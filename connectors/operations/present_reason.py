"""Says why usage is held now.

The tables have the reason of the moment at which the usage was counted. A later mapping changes the reason in the
ledger, but not in the tables. So this module resolves the mapping and the orgs of the tables again, by the meter's rule.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from connectors.operations.stored_records import CUSTOMER_COLUMNS, ORG_COLUMNS, customer_of, org_of
from schemas.customers import CustomerRecord, OrgRecord
from schemas.moments import to_us
from schemas.wire import ORG
from streams.core.mapping.held_reasons import NO_MAPPING
from streams.core.mapping.resolve import resolve_held

_CUSTOMERS = f"SELECT {CUSTOMER_COLUMNS} FROM customer_records WHERE litellm_customer_id = ANY($1)"  # noqa: S608
_ORGS = f"SELECT {ORG_COLUMNS} FROM organisations WHERE org_id = ANY($1)"  # noqa: S608


class HeldAsCounted(NamedTuple):
    """Held usage as it was counted.

    Fields:
        org_id: the org that would have paid; `""` = none.
        ended_at: the end of its last call.
    """

    customer: str
    id_kind: str
    org_id: str
    reason: str
    ended_at: datetime


async def present_reasons(connection: Any, held: Sequence[HeldAsCounted], code: str, now_us: int) -> list[str | None]:
    """Return for each part why it is held now, according to the tables, which are seconds behind the ledgers.

    None = the tables do not say it: the mapping names a payer, so the usage is released within seconds, or waits for
    its billing period or its rate card; or it is an org's own usage.

    Args:
        connection: to Postgres.
        code: `LAGO_EVENT_CODE`; `""` = any metric.
        now_us: microseconds since 1970 UTC.
    """
    customers = {
        row["litellm_customer_id"]: customer_of(row)
        for row in await connection.fetch(_CUSTOMERS, list({part.customer for part in held}))
    }
    names = {version.lago_customer_id for customer in customers.values() for version in customer.versions}
    names.update(part.org_id for part in held)
    orgs = {row["org_id"]: org_of(row) for row in await connection.fetch(_ORGS, list(names))}
    return [_reason(part, customers.get(part.customer), orgs, code, now_us) for part in held]


def _reason(
    part: HeldAsCounted, customer: CustomerRecord | None, orgs: dict[str, OrgRecord], code: str, now_us: int
) -> str | None:
    if part.id_kind == ORG:
        return None
    if customer is None:
        return None if part.org_id else NO_MAPPING
    ended_us, kind = to_us(part.ended_at), part.id_kind
    target = resolve_held(customer, part.org_id, ended_us, kind, orgs, code, now_us, part.reason)
    return target.held or None
