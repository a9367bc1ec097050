"""The records that decide who pays: a customer's mapping with its versions, and an org with its subscription periods.

These are the values of the compacted topics `billing.customers` (key: LiteLLM customer id) and `billing.orgs` (key: org
id). The topics are the source of truth; every table is made from them (docs/adr/0003).
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from schemas.moments import MAX_US


class MappingVersion(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """The mapping of a customer from one moment on.

    Fields:
        effective_from: microseconds since 1970 UTC, a whole second. The first version of a customer also covers all
            earlier time.
        lago_customer_id: the key of the billed org: Lago's customer `external_id`, see schemas/organizations.py.
        lago_organization_id: the Lago organisation as the request named it. Only `lago_customer_id` identifies the org.
        external_subscription_id: `""` = the org's record names it.
        id_kind: only calls whose customer id is from this field match; `""` = any.
        updated_at: when this version was written, microseconds since 1970 UTC.
        deleted: whether the customer has no mapping from here on. Such a version is never active.
        soon: whether it was requested for as soon as possible, without a named moment.
        instead_of: orgs of the versions that it replaced by a correction. Usage that was held for them belongs to this
            version.
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
        known_from: dropped versions decided about usage before this moment, microseconds since 1970 UTC. 0 = no version
            was dropped, so the first version also covers all earlier time.
    """

    litellm_customer_id: str
    versions: tuple[MappingVersion, ...]
    created_at: int
    updated_at: int
    known_from: int = 0


class Period(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """A subscription's life `[started_at, terminated_at)`, microseconds since 1970 UTC; None = still active.

    The fields after `plan_code` say how Lago invoices it. Records of older releases have none of them.

    Fields:
        interval: how often Lago invoices its charges: `weekly`, `monthly` ...; `""` = not known yet.
        anchor: with anniversary billing, a moment in the day that begins a billing period, microseconds since 1970 UTC;
            None = billing periods follow the calendar.
        timezone: the time zone whose midnights begin a billing period, an IANA name; `""` = UTC.
        charged: codes of the metrics that its plan charges; None = not known yet.
        currency: the currency in which its plan reads the cents of events, if it is not USD; `""` = USD, not known yet,
            or the plan reads no cents.
    """

    external_id: str
    started_at: int
    terminated_at: int | None = None
    plan_code: str = ""
    interval: str = ""
    anchor: int | None = None
    timezone: str = ""
    charged: tuple[str, ...] | None = None
    currency: str = ""


class OrgRecord(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """A billed organisation: Lago's customer, with its subscription periods in order of start.

    Fields:
        subscription_id: the external id of its subscription in Lago, which never changes; `""` = not chosen yet.
        limits: the largest allowed count in a billing period, by name, e.g. `tokens`, `requests`.
        updated_at: when this record was written, microseconds since 1970 UTC.
        unusable: why usage is held, by external id, for subscriptions that a mapping names and Lago does not have for
            this org. A period with the same id is newer and overrides it.
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
    """Check a record. Raises: ValueError: there is no version, the versions are out of order, or a timestamp is
    invalid.
    """
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
    """Check a record. Raises: ValueError: a timestamp is invalid."""
    ends = (period.terminated_at for period in record.periods)
    anchors = (period.anchor for period in record.periods)
    begins = (period.started_at for period in record.periods)
    _check_moments(record.updated_at, *begins, *(at for at in (*ends, *anchors) if at is not None))


def _check_moments(*moments: int) -> None:
    for at_us in moments:
        if not 0 <= at_us < MAX_US:
            raise ValueError("moment")


#: The checks that every reader of these topics makes in addition to the types.
CHECKS: Final[dict[type[Any], Callable[[Any], None]]] = {CustomerRecord: check_customer, OrgRecord: check_org}
