"""Reads from Postgres the orgs whose records show the end of a subscription."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from schemas.customers import OrgRecord, Period
from schemas.moments import parse_us

#: The orgs with an end since a moment.
RECORDS: Final = """
SELECT o.org_id, o."offset", o.currency, o.status, o.subscription_id, o.periods::text, o.organization
FROM organisations o
WHERE EXISTS (SELECT FROM jsonb_to_recordset(o.periods) AS p (terminated_at timestamptz) WHERE p.terminated_at >= $1)
ORDER BY o.org_id
"""
#: Whether events were delivered to these subscriptions. Uses the index of the org's parts, and stops at the first match.
USED: Final = """
SELECT EXISTS (
    SELECT FROM usage_parts
    WHERE org_id = $1 AND COALESCE(posted_to, external_subscription_id) = ANY($2::text[])
        AND status = 'completed' AND event IS NOT NULL
)
"""


def record_of(row: Mapping[str, Any]) -> OrgRecord:
    """Read the fields that decide who pays from the org's row."""
    periods = tuple(_period(one) for one in msgspec.json.decode(row["periods"]))
    own = row["subscription_id"]
    return OrgRecord(
        row["org_id"],
        currency=row["currency"],
        status=row["status"],
        periods=periods,
        subscription_id=own,
        organization=row["organization"],
    )


def _period(columns: Mapping[str, Any]) -> Period:
    ended = columns.get("terminated_at")
    moments = {
        "started_at": parse_us(columns["started_at"]),
        "terminated_at": None if ended is None else parse_us(ended),
    }
    return msgspec.convert({**columns, **moments}, Period)
