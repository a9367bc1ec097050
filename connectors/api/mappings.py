"""Mappings over HTTP: which Lago customer pays for the usage of a LiteLLM customer (docs/mapping.md)."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from aiohttp import web

from connectors.api.mapping_models import (
    EndingBody,
    History,
    ListQuery,
    MappingBody,
    MappingPage,
    MappingShown,
    cursor_of,
    history_shown,
    mapping_shown,
)
from connectors.billing.mapping_pages import MappingPages
from connectors.billing.mappings import Known, MappingResult, Mappings
from connectors.http.endpoint import AuthorizedRequest, endpoint, other_org
from connectors.http.health import json_response
from connectors.http.preconditions import Precondition, tag_of
from connectors.http.problem import Problem
from schemas.customer_id import normalise_customer_id
from schemas.customers import CustomerRecord, MappingVersion
from streams.core.mapping.customer_prefixes import names_no_customer
from streams.core.mapping.set_mapping import EndMappingRequest

READ, WRITE = "mappings:read", "mappings:write"
_ONE: Final = "/customers/{customer_id}/mapping"
_SHARED: Final[dict[str, Any]] = {"sees_to_orgs": True, "any_text": ("customer_id",)}


class RequestGuard:
    """The `MappingGuard` of a request: it checks the preconditions and the caller's orgs, and writes the audit log."""

    def __init__(self, authorized: AuthorizedRequest, mappings: Mappings) -> None:
        self._authorized = authorized
        self._mappings = mappings
        self._condition = Precondition.of(authorized.request.headers)

    def admits(self, customer_id: str, known: Known) -> None:
        """Check the caller. Raises: Problem: 403 `other_org`: another org pays for the customer, or no org pays and the
        caller may not adopt the customer.
        """
        principal, payers = self._authorized.principal, self._mappings.payers(known) if known is not None else set()
        if principal.orgs is not None and names_no_customer(customer_id):
            raise not_theirs()
        is_own = bool(payers) and principal.orgs is not None and all(map(principal.may_see, payers))
        if not is_own and (not principal.may_adopt(customer_id) or not all(map(principal.may_see, payers))):
            raise not_theirs()

    def allows(self, before: Known, after: CustomerRecord) -> None:
        """Check again at the moment of the change. Raises: Problem: 403 as `admits`; 412 as `Precondition`."""
        self.admits(after.litellm_customer_id, before)
        payers = self._mappings.payers(before) if before is not None else set()
        if not all(map(self._authorized.principal.may_see, self._mappings.payers(after))):
            raise not_theirs()
        self._check_kinds(before, after)
        if self._authorized.principal.orgs is not None:
            known = before.versions if before is not None else ()
            self._check_subscriptions([version for version in after.versions if version not in known])
        self._condition.check(before if payers else None, done=after == before)

    def _check_kinds(self, before: Known, after: CustomerRecord) -> None:
        """Check the kinds of ids: paying for ids of another kind is adopting a customer, because these are other calls.
        Raises: Problem `other_org`.
        """
        paid = {version.id_kind for version in self._mappings.paying(before)} if before is not None else set()
        new = {version.id_kind for version in self._mappings.paying(after)} - paid
        if new and "" not in paid and not self._authorized.principal.may_adopt(after.litellm_customer_id):
            raise not_theirs()

    def _check_subscriptions(self, new: Sequence[MappingVersion]) -> None:
        """Check that each named subscription belongs to the org, because Lago bills only by the subscription. Raises:
        Problem `other_org`.
        """
        for version in new:
            named = version.external_subscription_id
            if named and not self._mappings.is_subscription_of(version.lago_customer_id, named):
                raise other_org()

    async def changing(self, before: Known, after: Known) -> None:
        """Write the whole record, before and after, into the audit log. Raises: Unavailable."""
        await self._authorized.changing(record_told(before), record_told(after))


class MappingHandlers:
    """`/customers/mapping`, `/customers/mappings` and everything below `/customers/{customer_id}/mapping`."""

    def __init__(self, mappings: Mappings, pages: MappingPages) -> None:
        self._mappings = mappings
        self._pages = pages

    @endpoint(
        "POST",
        "/customers/mapping",
        WRITE,
        body=MappingBody,
        refuses={
            409: ("too_many_versions",),
            412: ("precondition_failed", "exists_already"),
            422: (
                "effective_from_too_early",
                "correction_begins_elsewhere",
                "unknown_organization",
                "other_organization",
            ),
        },
        answers={200: MappingShown, 201: MappingShown},
        **_SHARED,
    )
    async def post(self, authorized: AuthorizedRequest) -> web.Response:
        """Set which org pays for a LiteLLM customer, from its effective_from on."""
        body: MappingBody = authorized.body
        await self._mappings.ready()
        request = self._mappings.placed(body.wanted())
        authorized.for_org(request.lago_customer_id)
        mapped = await self._mappings.put(request, RequestGuard(authorized, self._mappings))
        return _answer(authorized, mapped, 201 if mapped.created else 200)

    @endpoint("GET", "/customers/mappings", READ, query=ListQuery, answers={200: MappingPage}, **_SHARED)
    async def listed(self, authorized: AuthorizedRequest) -> web.Response:
        """List mappings, in pages."""
        query: ListQuery = authorized.query

        def wanted(version: MappingVersion) -> bool:
            return (
                query.org in ("", version.lago_customer_id)
                and query.active in (None, version.is_active)
                and authorized.principal.may_see(version.lago_customer_id)
            )

        await self._mappings.ready()
        orgs = authorized.principal.orgs
        page = await self._pages.page(query.cursor, query.prefix, wanted, query.limit, orgs)
        shown = [mapping_shown(mapped, authorized.principal.may_see) for mapped in page.mappings]
        return json_response({"mappings": shown, "next_cursor": cursor_of(page.last)})

    @endpoint("GET", _ONE, READ, refuses={404: ("no_mapping",)}, answers={200: MappingShown}, **_SHARED)
    async def get(self, authorized: AuthorizedRequest) -> web.Response:
        """Show which org pays for a LiteLLM customer."""
        mapped = await self._mappings.get(customer) if (customer := _customer(authorized)) else None
        if mapped is None:
            raise _no_mapping(authorized)
        if not authorized.principal.may_see(mapped.version.lago_customer_id):
            raise not_theirs()
        return _answer(authorized, mapped)

    @endpoint("GET", f"{_ONE}/history", READ, refuses={404: ("no_mapping",)}, answers={200: History}, **_SHARED)
    async def history(self, authorized: AuthorizedRequest) -> web.Response:
        """Show which orgs paid, pay and will pay for a LiteLLM customer."""
        record = await self._mappings.record(customer) if (customer := _customer(authorized)) else None
        if record is None:
            raise _no_mapping(authorized)
        if not all(authorized.principal.may_see(version.lago_customer_id) for version in record.versions):
            raise not_theirs()
        return json_response(history_shown(record))

    @endpoint(
        "POST",
        f"{_ONE}/deactivate",
        WRITE,
        body=EndingBody,
        refuses={
            404: ("no_mapping",),
            412: ("precondition_failed", "exists_already"),
            422: ("effective_from_too_early",),
        },
        answers={200: MappingShown},
        **_SHARED,
    )
    async def deactivate(self, authorized: AuthorizedRequest) -> web.Response:
        """Hold the usage of a LiteLLM customer from effective_from on."""
        return await self._end(authorized, EndMappingRequest(effective_from=authorized.body.effective_from))

    @endpoint(
        "DELETE",
        _ONE,
        WRITE,
        refuses={404: ("no_mapping",), 412: ("precondition_failed", "exists_already")},
        answers={200: MappingShown},
        **_SHARED,
    )
    async def delete(self, authorized: AuthorizedRequest) -> web.Response:
        """Remove the mapping of a LiteLLM customer; its usage from now on is held."""
        return await self._end(authorized, EndMappingRequest(deleted=True))

    async def _end(self, authorized: AuthorizedRequest, ending: EndMappingRequest) -> web.Response:
        guard = RequestGuard(authorized, self._mappings)
        mapped = await self._mappings.end(customer, ending, guard) if (customer := _customer(authorized)) else None
        if mapped is None:
            raise _no_mapping(authorized)
        return _answer(authorized, mapped)


def _answer(authorized: AuthorizedRequest, mapped: MappingResult, status: int = 200) -> web.Response:
    return json_response(mapping_shown(mapped, authorized.principal.may_see), status, {"ETag": tag_of(mapped.record)})


def _customer(authorized: AuthorizedRequest) -> str | None:
    return normalise_customer_id(authorized.part("customer_id"))


def not_theirs() -> Problem:
    """Return the same response for a customer of another org and for an unknown customer, so that it does not show
    which ids exist.
    """
    return Problem(403, "other_org", "this credential may not see or map this LiteLLM customer (docs/access.md, Orgs)")


def _no_mapping(authorized: AuthorizedRequest) -> Problem:
    if authorized.principal.orgs is not None:
        return not_theirs()
    return Problem(404, "no_mapping", "this LiteLLM customer is not mapped: POST /customers/mapping maps it")


def record_told(record: Known) -> Any:
    """Return a customer's whole record in the form of the audit log."""
    return None if record is None else msgspec.to_builtins(record)
