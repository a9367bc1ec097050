"""The requests and responses of the mapping endpoints."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Annotated, Any
from unicodedata import normalize

from pydantic import AfterValidator, BaseModel, Field, StrictBool

from connectors.billing.mapping_bodies import MappingRow, Moment
from connectors.billing.mappings import UNKNOWN_ORG, MappingResult
from schemas.customers import CustomerRecord, MappingVersion
from schemas.moments import to_iso
from schemas.organizations import external_id_of


def _from_cursor(text: str) -> str:
    try:
        return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode()
    except ValueError:
        raise ValueError("is not a next_cursor of an earlier page") from None


class MappingBody(MappingRow, extra="forbid"):
    """A mapping to set. An unknown field is refused: a misspelt `effective_from` would bill from another moment on."""

    # A text for true or false is needed only in the cells of CSV.
    is_active: StrictBool = True
    correct: StrictBool | None = None


class EndingBody(BaseModel, extra="forbid"):
    """When to deactivate a mapping; `effective_from` as in `MappingBody`. The body may be absent.

    Fields:
        effective_from: from when on usage is held: ISO 8601 or seconds since 1970; null = now.
    """

    effective_from: Moment = None


class ListQuery(BaseModel):
    """Which mappings to list.

    Fields:
        org: only mappings to this org.
        active: only active mappings (true), or only inactive ones (false).
        prefix: only customers whose ids begin so.
        limit: the most mappings that the answer has.
        cursor: `next_cursor` of the page before.
    """

    org: str = ""
    active: bool | None = None
    prefix: Annotated[str, Field(max_length=255), AfterValidator(lambda text: normalize("NFC", text))] = ""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[str, Field(max_length=1024), AfterValidator(_from_cursor)] = ""


class VersionShown(BaseModel):
    """A mapping from `effective_from` on; `deleted`: from then on there is no mapping.

    Fields:
        org_id: the org's key in the other endpoints: of a further Lago organisation
            `<organisation>::<lago_customer_id>`.
        billing_plan: the code of the Lago plan to which `AUTO_SUBSCRIBE=1` subscribes an org without a subscription.
        is_active: false: usage of the customer is held.
        external_subscription_id: the subscription that pays; null = the running one of the Lago customer.
        id_kind: the mapping holds for calls whose customer id is from this field; null = for all calls.
        effective_from: from when on the version applies, ISO 8601.
    """

    org_id: str
    lago_customer_id: str
    lago_organization_id: str
    billing_plan: str
    is_active: bool
    external_subscription_id: str | None
    id_kind: str | None
    effective_from: str
    deleted: bool


class MappingShown(VersionShown):
    """The version in force. Its usage is billed to `subscription`; if that is null, `held_reason` says why it is held.

    Fields:
        created_at: when the customer got its first mapping, ISO 8601.
        subscription: the subscription that pays; null = usage is held.
        held_reason: why usage is held (docs/errors.md); null = it is not.
        upcoming: versions that apply later, the next one first.
        corrected: after a change: the mistaken version that this one replaced, from its beginning on; null =
            none.
        warning: after a POST: what is probably wrong with the mapping, for people; null = nothing is known to be.
    """

    litellm_customer_id: str
    created_at: str
    updated_at: str
    subscription: str | None
    held_reason: str | None
    upcoming: list[VersionShown]
    corrected: VersionShown | None
    warning: str | None


class MappingPage(BaseModel):
    """Mappings by `litellm_customer_id`. Only a null `next_cursor` means that there are no more; a page may be short.

    Fields:
        mappings: the mappings, by `litellm_customer_id`.
    """

    mappings: list[MappingShown]
    next_cursor: str | None


class PastVersion(VersionShown):
    """A version of the history; `updated_at` is when it was written.

    Fields:
        updated_at: when the version was written, ISO 8601.
    """

    updated_at: str


class History(BaseModel):
    """All versions, the oldest first. A version applies until the next one; the first one also applies to earlier usage.

    Fields:
        created_at: when the customer got its first mapping, ISO 8601.
        versions: all versions, the oldest first.
    """

    litellm_customer_id: str
    created_at: str
    updated_at: str
    versions: list[PastVersion]


def cursor_of(last: str | None) -> str | None:
    """Return a cursor that continues behind the customer `last`; clients must not interpret it."""
    return None if last is None else urlsafe_b64encode(last.encode()).decode().rstrip("=")


def mapping_shown(mapped: MappingResult, may_see: Callable[[str], bool]) -> dict[str, Any]:
    """Return a `MappingShown`, without the upcoming versions of orgs that the caller may not see."""
    record, version = mapped.record, mapped.version
    later = [
        other
        for other in record.versions
        if other.effective_from > version.effective_from and may_see(other.lago_customer_id)
    ]
    return {
        "litellm_customer_id": record.litellm_customer_id,
        **_fields(version),
        "created_at": to_iso(record.created_at),
        "updated_at": to_iso(version.updated_at),
        "subscription": mapped.target.subscription or None,
        "held_reason": mapped.target.held or None,
        "upcoming": [_fields(other) for other in later],
        "corrected": None if mapped.corrected is None else _fields(mapped.corrected),
        "warning": UNKNOWN_ORG if mapped.unknown_org else None,
    }


def history_shown(record: CustomerRecord) -> dict[str, Any]:
    """Return a `History`."""
    return {
        "litellm_customer_id": record.litellm_customer_id,
        "created_at": to_iso(record.created_at),
        "updated_at": to_iso(record.updated_at),
        "versions": [{**_fields(version), "updated_at": to_iso(version.updated_at)} for version in record.versions],
    }


def _fields(version: MappingVersion) -> dict[str, Any]:
    return {
        "org_id": version.lago_customer_id,
        "lago_customer_id": external_id_of(version.lago_organization_id, version.lago_customer_id),
        "lago_organization_id": version.lago_organization_id,
        "billing_plan": version.billing_plan,
        "is_active": version.is_active,
        "external_subscription_id": version.external_subscription_id or None,
        "id_kind": version.id_kind or None,
        "effective_from": to_iso(version.effective_from),
        "deleted": version.deleted,
    }
