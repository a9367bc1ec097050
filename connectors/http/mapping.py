"""Customer mapping over HTTP: which Lago customer pays for a LiteLLM customer's usage."""

from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints, ValidationError

from connectors.http.auth import WebhookAuth
from connectors.http.health import json_response
from connectors.http.middleware import bearer_only
from connectors.http.problem import Problem, try_again
from connectors.mappings import Mapped, Mappings
from schemas.customer_id import normalise_customer_id
from schemas.customers import MappingVersion
from schemas.errors import Rejected, Unavailable
from schemas.moments import parse_us, to_iso
from streams.core.remap import TOO_MANY, MappingRequest

_RETRY_S = 2


def _normal(text: str) -> str:
    normal = normalise_customer_id(text)
    if normal is None:
        raise ValueError("is empty once spaces are trimmed")
    return normal


def _moment_us(value: Any) -> int | None:
    try:
        return None if value is None else parse_us(value)
    except Rejected as error:
        raise ValueError(f"should be ISO 8601 or seconds since 1970: {error.detail}") from None


#: No control characters: ids become Kafka keys, headers and database text.
Id = Annotated[str, StringConstraints(strip_whitespace=True, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]


class MappingBody(BaseModel):
    """`POST /customers/mapping`; unknown members are ignored.

    Fields:
        effective_from: ISO 8601 or seconds since 1970; microseconds once read.
        id_kind: only calls whose customer id came from this field are meant; None = all.
    """

    litellm_customer_id: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_normal)]
    lago_customer_id: Id
    lago_organization_id: Id
    billing_plan: Id = "ai_basic"
    is_active: bool = True
    external_subscription_id: Id | None = None
    effective_from: Annotated[int | None, BeforeValidator(_moment_us, json_schema_input_type=str | float | None)] = None
    id_kind: (
        Literal["end_user", "user", "team", "organization", "key", "customer", "subscription", "unattributed"] | None
    ) = None


def mapping_routes(mappings: Mappings, auth: WebhookAuth) -> list[web.RouteDef]:
    """`POST /customers/mapping` and `GET /customers/{customer_id}/mapping`, for those who name a token of `auth`."""

    async def post(request: web.Request) -> web.Response:
        body = _parsed(await request.read())
        wanted = MappingRequest(
            body.litellm_customer_id,
            body.lago_customer_id,
            body.lago_organization_id,
            body.billing_plan,
            body.is_active,
            body.external_subscription_id or "",
            body.id_kind or "",
            body.effective_from,
        )
        try:
            mapped = await mappings.put(wanted)
        except Rejected as refusal:
            status = 409 if refusal.reason == TOO_MANY else 422
            raise Problem(status, refusal.reason, refusal.detail) from refusal
        except Unavailable as error:
            raise try_again(error.reason, error.detail, _RETRY_S) from error
        return json_response(_shown(mapped), 201 if mapped.created else 200)

    async def get(request: web.Request) -> web.Response:
        customer_id = normalise_customer_id(request.match_info["customer_id"])
        try:
            mapped = await mappings.get(customer_id) if customer_id else None
        except Unavailable as error:
            raise try_again(error.reason, error.detail, _RETRY_S) from error
        if mapped is None:
            raise Problem(404, "no_mapping", "this LiteLLM customer is not mapped")
        return json_response(_shown(mapped))

    return [
        web.post("/customers/mapping", bearer_only(auth, post)),
        web.get("/customers/{customer_id}/mapping", bearer_only(auth, get)),
    ]


def _parsed(body: bytes) -> MappingBody:
    """Raises: Problem 400 for what is not JSON, 422 with the fields that are wrong; never with their values."""
    try:
        return MappingBody.model_validate_json(body)
    except ValidationError as invalid:
        found = invalid.errors(include_input=False, include_url=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        raise Problem(400, "not_json", "the body is not JSON")
    errors = [
        {
            "field": ".".join(str(part) for part in error["loc"]) or "body",
            "message": error["msg"].removeprefix("Value error, "),
        }
        for error in found
    ]
    sentence = "; ".join(f"{error['field']}: {error['message']}" for error in errors)
    raise Problem(422, "invalid_fields", sentence, errors=errors)


def _shown(mapped: Mapped) -> dict[str, Any]:
    """The version with the record's dates; `subscription` is where its usage goes, else `held_reason` says why not."""
    record, version = mapped.record, mapped.version
    later = [other for other in record.versions if other.effective_from > version.effective_from]
    return {
        "litellm_customer_id": record.litellm_customer_id,
        **_fields(version),
        "created_at": to_iso(record.created_at),
        "updated_at": to_iso(version.updated_at),
        "subscription": mapped.target.subscription or None,
        "held_reason": mapped.target.held or None,
        "upcoming": [_fields(other) for other in later],
    }


def _fields(version: MappingVersion) -> dict[str, Any]:
    return {
        "lago_customer_id": version.lago_customer_id,
        "lago_organization_id": version.lago_organization_id,
        "billing_plan": version.billing_plan,
        "is_active": version.is_active,
        "external_subscription_id": version.external_subscription_id or None,
        "id_kind": version.id_kind or None,
        "effective_from": to_iso(version.effective_from),
    }
