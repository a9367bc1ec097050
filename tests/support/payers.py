"""The payer by a customer's mapping, for cases where orgs, their subscriptions and the kind of id do not matter."""

import msgspec

from schemas.customers import CustomerRecord
from streams.core.mapping.versions import payers


def payer(record: CustomerRecord, at_us: int, now_us: int | None = None) -> str | None:
    """Return the org that pays for usage at `at_us`, asked at `now_us`; None = all versions have started then."""
    versions = tuple(msgspec.structs.replace(version, id_kind="") for version in record.versions)
    return next((version.lago_customer_id for version in payers(versions, at_us, "", {}, now_us)), None)
