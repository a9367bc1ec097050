"""Who pays: a customer's mapping with its versions, an org with its subscription periods.

These are the values of the compacted topics `billing.customers` (key: LiteLLM customer id) and `billing.orgs` (key: org
id). The topics are the truth; every table is made from them (docs/adr/0003).
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from schemas.moments import MAX_US


class MappingVersion(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """The mapping of a customer from one moment on.

    Fields:
        effective_from: microseconds since 1970 UTC, a whole second; the first version of a customer also covers
            everything before it.
        lago_customer_id: the key of the billed org: Lago's customer `external_id`, see schemas/organizations.py.
        lago_organization_id: the Lago organisation as it was named; `lago_customer_id` alone says whose org it is.
        external_subscription_id: `""` = found in the org's record.
        id_kind: `""` = any; otherwise only calls whose id came from this field match.
        updated_at: when this version was written, microseconds since 1970 UTC.
        deleted: from here on the customer has no mapping; such a version is never active.
        soon: it was requested for as soon as possible, not for a moment that the request named.
        instead_of: orgs of the versions that it replaced by correction: what was held for them belongs to it.
    """

    effective_from: int
    lago_customer_id: str
    lago_organization_id: str
    billing_plan: str = "ai_basic"
    is_active: bool = True
    external_subscription_id: str = ""
    id_kind: str = ""
    updated_at: int = 0
    deleted: bool = False
    soon: bool = False
    instead_of: tuple[str, ...] = ()


class CustomerRecord(msgspec.Struct, frozen=True, gc=False):
    """A customer's mapping: versions in order of `effective_from`, oldest first, at least one.

    Fields:
        known_from: usage before this moment was decided by versions that were dropped, microseconds since 1970 UTC; 0 =
            none was dropped, so the first version also covers everything before it.
    """

    litellm_customer_id: str
    versions: tuple[MappingVersion, ...]
    created_at: int
    updated_at: int
    known_from: int = 0


class Period(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """A subscription's life `[started_at, terminated_at)`, microseconds since 1970 UTC; None = still running.

    The fields after `plan_code` say how Lago invoices it; records of older releases have none of them.

    Fields:
        interval: how often its charges are invoiced: `weekly`, `monthly` ...; `""` = not known yet.
        anchor: with anniversary billing, a moment in the day that begins a billing period, microseconds since 1970 UTC;
            None = billing periods follow the calendar.
        timezone: the time zone whose midnights begin a billing period, an IANA name; `""` = UTC.
        charged: codes of the metrics that its plan charges; None = not known yet.
    """

    external_id: str
    started_at: int
    terminated_at: int | None = None
    plan_code: str = ""
    interval: str = ""
    anchor: int | None = None
    timezone: str = ""
    charged: tuple[str, ...] | None = None


class OrgRecord(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """A billed organisation: Lago's customer, with its subscription periods in order of start.

    Fields:
        subscription_id: the external id of its subscription in Lago, chosen once; `""` = not yet.
        limits: the most of a thing in a billing period, by its name, e.g. `tokens`, `requests`.
        updated_at: when this was written, microseconds since 1970 UTC.
        unusable: subscriptions that a mapping names and that Lago does not have for this org, by external id: the
            reason that their usage is held for. A period with the same id is newer and wins.
        organization: the Lago organisation that it is a customer of; `""` = the default one.
    """

    org_id: str
    name: str = ""
    plan: str = ""
    currency: str = ""
    status: str = "active"
    periods: tuple[Period, ...] = ()
    updated_at: int = 0
    subscription_id: str = ""
    limits: dict[str, int] = {}
    email: str = ""
    unusable: dict[str, str] = {}
    organization: str = ""


def check_customer(record: CustomerRecord) -> None:
    """Raises: ValueError: there is no version, the versions are out of order, or a moment is invalid."""
    begins = [version.effective_from for version in record.versions]
    if not begins or begins != sorted(begins):
        raise ValueError("versions")
    _check_moments(
        record.created_at,
        record.updated_at,
        record.known_from,
        *begins,
        *(version.updated_at for version in record.versions),
    )


def check_org(record: OrgRecord) -> None:
    """Raises: ValueError: a moment is invalid."""
    ends = (period.terminated_at for period in record.periods)
    anchors = (period.anchor for period in record.periods)
    begins = (period.started_at for period in record.periods)
    _check_moments(record.updated_at, *begins, *(at for at in (*ends, *anchors) if at is not None))


def _check_moments(*moments: int) -> None:
    for at_us in moments:
        if not 0 <= at_us < MAX_US:
            raise ValueError("moment")


#: The checks beside the types that every reader of these topics makes.
CHECKS: Final[dict[type[Any], Callable[[Any], None]]] = {CustomerRecord: check_customer, OrgRecord: check_org}
