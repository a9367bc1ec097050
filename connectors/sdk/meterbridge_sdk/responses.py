"""The responses of Meterbridge as types of the SDK."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import httpx

from meterbridge_sdk.errors import BillingUnavailable

#: Bytes of an unpacked response; Meterbridge's own to an SDK have some kilobytes. A wrong address may answer without an end.
MAX_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class OrgSubscription:
    """An org's subscription in Lago.

    Fields:
        external_id: Lago's `external_id`.
        plan_code: the plan that is billed now.
        status: `active` or `pending`.
        started_at: ISO 8601, UTC; None = not begun.
        next_plan_code: the plan from the next billing period on; None = the same.
    """

    external_id: str
    plan_code: str | None
    status: str
    started_at: str | None
    next_plan_code: str | None


@dataclass(frozen=True, slots=True)
class CurrentUsage:
    """The usage that Lago counts for an org in the running billing period `[from_datetime, to_datetime]`.

    Fields:
        from_datetime, to_datetime: ISO 8601, UTC.
        currency: ISO 4217.
        amount_cents: in the currency's smallest unit, without taxes.
        units: by code of the billable metric; only metrics that the org's plan charges for.
    """

    external_subscription_id: str
    from_datetime: str
    to_datetime: str
    currency: str
    amount_cents: int
    units: Mapping[str, Decimal]


async def bounded_response(http: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send a request; return the response with its whole body. Raises: httpx.RequestError: also for more than `MAX_BYTES`."""
    response, body = await http.send(request, stream=True), bytearray()
    try:
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > MAX_BYTES:
                raise httpx.ReadError(f"the response has more than {MAX_BYTES} bytes", request=request)
    finally:
        await response.aclose()
    headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-encoding"]
    return httpx.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)


def shown_url(url: httpx.URL) -> str:
    """Return the address for an error's text: without user name, password and query, which may be secret."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))


def json_object(response: httpx.Response) -> dict[str, Any]:
    """Return the response's JSON object; `{}` if the response is not an object. Numbers with a point become `Decimal`."""
    try:
        value = json.loads(response.content, parse_float=Decimal)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def subscription_of(response: httpx.Response, member: str = "") -> OrgSubscription:
    """Return the subscription that a response shows.

    Args:
        member: the member of the JSON object that is the subscription; `""` = the object itself.

    Raises:
        BillingUnavailable: `invalid_response`.
    """
    body = json_object(response)
    member_value = body.get(member) if member else body
    if not isinstance(member_value, dict) or not isinstance(member_value.get("external_id"), str):
        raise invalid(response)
    return OrgSubscription(
        member_value["external_id"],
        member_value.get("plan_code"),
        member_value.get("status") or "",
        member_value.get("started_at"),
        member_value.get("next_plan_code"),
    )


def usage_of(response: httpx.Response) -> CurrentUsage:
    """Return the usage that a response shows. Raises: BillingUnavailable: `invalid_response`."""
    body = json_object(response)
    units: dict[str, Decimal] = {}
    try:
        for charge in body["charges"]:
            code = charge["code"]
            units[code] = units.get(code, Decimal(0)) + Decimal(charge["units"])
        return CurrentUsage(
            body["external_subscription_id"],
            body["from_datetime"],
            body["to_datetime"],
            body["currency"],
            int(body["amount_cents"]),
            units,
        )
    except (KeyError, TypeError, ValueError, InvalidOperation) as error:
        raise invalid(response) from error


def limits_of(response: httpx.Response, member: str) -> dict[str, int]:
    """Return the limits of one member of the response, by name. Raises: BillingUnavailable: `invalid_response`."""
    member_value = json_object(response).get(member)
    if not isinstance(member_value, dict) or not all(type(maximum) is int for maximum in member_value.values()):
        raise invalid(response)
    return member_value


def invalid(response: httpx.Response) -> BillingUnavailable:
    """Return the error for a response that is not from Meterbridge, for example a proxy's login page."""
    detail = f"the answer of {shown_url(response.url)} is not Meterbridge's: check its address (METERBRIDGE_URL)"
    return BillingUnavailable("invalid_response", detail, status=response.status_code)
