"""Customer mapping over HTTP: which Lago customer pays for a LiteLLM customer's usage (docs/mapping.md)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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
from connectors.http.endpoint import AuthorizedRequest, Endpoint, other_org
from connectors.http.health import json_response
from connectors.http.preconditions import Precondition, tag_of
from connectors.http.problem import Problem
from schemas.customer_id import normalise_customer_id
from schemas.customers import CustomerRecord, MappingVersion
from schemas.errors import Rejected
from streams.core.mapping.customer_prefixes import is_of_nobody
from streams.core.mapping.set_mapping import TOO_MANY, EndMappingRequest

READ, WRITE = "mappings:read", "mappings:write"
_ONE = "/customers/{customer_id}/mapping"


class RequestGuard:
    """`connectors.billing.mappings.MappingGuard` of a request: its preconditions, the caller's orgs, and the audit log."""

    def __init__(self, asked: AuthorizedRequest, mappings: Mappings) -> None:
        self._asked = asked
        self._mappings = mappings
        self._condition = Precondition.of(asked.request.headers)

    def admits(self, customer_id: str, known: Known) -> None:
        """Raises: Problem: 403 `other_org`: another org pays for it, or nobody does and it is not theirs to map."""
        who, payers = self._asked.who, self._mappings.payers(known) if known is not None else set()
        if who.orgs is not None and is_of_nobody(customer_id):
            raise not_theirs()
        is_own = bool(payers) and who.orgs is not None and all(map(who.may_see, payers))
        if not is_own and (not who.may_adopt(customer_id) or not all(map(who.may_see, payers))):
            raise not_theirs()

    def allows(self, before: Known, after: CustomerRecord) -> None:
        """Raises: Problem: 403 as in `admits`, at the moment of the change; 412, see `Precondition`."""
        self.admits(after.litellm_customer_id, before)
        payers = self._mappings.payers(before) if before is not None else set()
        if not all(map(self._asked.who.may_see, self._mappings.payers(after))):
            raise not_theirs()
        self._check_kinds(before, after)
        if self._asked.who.orgs is not None:
            known = before.versions if before is not None else ()
            self._check_subscriptions([version for version in after.versions if version not in known])
        self._condition.check(before if payers else None, done=after == before)

    def _check_kinds(self, before: Known, after: CustomerRecord) -> None:
        """Calls whose id came from another field are other calls: to pay for them too is to adopt. Raises: Problem."""
        paid = {version.id_kind for version in self._mappings.paying(before)} if before is not None else set()
        new = {version.id_kind for version in self._mappings.paying(after)} - paid
        if new and "" not in paid and not self._asked.who.may_adopt(after.litellm_customer_id):
            raise not_theirs()

    def _check_subscriptions(self, new: Sequence[MappingVersion]) -> None:
        """Lago bills by the subscription alone, so one that is named must be the org's own. Raises: Problem `other_org`."""
        for version in new:
            named = version.external_subscription_id
            if named and not self._mappings.is_subscription_of(version.lago_customer_id, named):
                raise other_org()

    async def changing(self, before: Known, after: Known) -> None:
        """The whole record, before and after. Raises: Unavailable."""
        await self._asked.changing(record_told(before), record_told(after))


def mapping_endpoints(mappings: Mappings, pages: MappingPages) -> list[Endpoint]:
    """`/customers/mapping`, `/customers/mappings` and `/customers/{customer_id}/mapping`, but for imports."""

    async def post(asked: AuthorizedRequest) -> web.Response:
        body: MappingBody = asked.body
        asked.for_org(body.lago_customer_id)
        with _refusals():
            mapped = await mappings.put(body.wanted(), RequestGuard(asked, mappings))
        return _answer(asked, mapped, 201 if mapped.created else 200)

    async def get(asked: AuthorizedRequest) -> web.Response:
        mapped = await mappings.get(customer) if (customer := _customer(asked)) else None
        if mapped is None:
            raise _no_mapping(asked)
        if not asked.who.may_see(mapped.version.lago_customer_id):
            raise not_theirs()
        return _answer(asked, mapped)

    async def listed(asked: AuthorizedRequest) -> web.Response:
        query: ListQuery = asked.query

        def wanted(version: MappingVersion) -> bool:
            return (
                query.org in ("", version.lago_customer_id)
                and query.active in (None, version.is_active)
                and asked.who.may_see(version.lago_customer_id)
            )

        await mappings.ready()
        page = pages.page(query.cursor, query.prefix, wanted, query.limit)
        told = [mapping_shown(mapped, asked.who.may_see) for mapped in page.mappings]
        return json_response({"mappings": told, "next_cursor": cursor_of(page.last)})

    async def history(asked: AuthorizedRequest) -> web.Response:
        record = await mappings.record(customer) if (customer := _customer(asked)) else None
        if record is None:
            raise _no_mapping(asked)
        if not all(asked.who.may_see(version.lago_customer_id) for version in record.versions):
            raise not_theirs()
        return json_response(history_shown(record))

    async def deactivate(asked: AuthorizedRequest) -> web.Response:
        return await end(asked, EndMappingRequest(effective_from=asked.body.effective_from))

    async def delete(asked: AuthorizedRequest) -> web.Response:
        return await end(asked, EndMappingRequest(deleted=True))

    async def end(asked: AuthorizedRequest, ending: EndMappingRequest) -> web.Response:
        guard = RequestGuard(asked, mappings)
        with _refusals():
            mapped = await mappings.end(customer, ending, guard) if (customer := _customer(asked)) else None
        if mapped is None:
            raise _no_mapping(asked)
        return _answer(asked, mapped)

    shared: dict[str, Any] = {"sees_to_orgs": True, "any_text": ("customer_id",)}
    shown = {200: MappingShown}
    return [
        Endpoint(
            "POST",
            "/customers/mapping",
            WRITE,
            "Say who pays for a LiteLLM customer, from its effective_from on.",
            post,
            body=MappingBody,
            answers={200: MappingShown, 201: MappingShown},
            changes=True,
            **shared,
        ),
        Endpoint(
            "GET",
            "/customers/mappings",
            READ,
            "Who pays for whom, in pages.",
            listed,
            query=ListQuery,
            answers={200: MappingPage},
            **shared,
        ),
        Endpoint("GET", _ONE, READ, "Who pays for a LiteLLM customer.", get, answers=shown, **shared),
        Endpoint(
            "GET",
            _ONE + "/history",
            READ,
            "Who paid, pays and will pay for a LiteLLM customer.",
            history,
            answers={200: History},
            **shared,
        ),
        Endpoint(
            "POST",
            _ONE + "/deactivate",
            WRITE,
            "Hold a LiteLLM customer's usage from effective_from on.",
            deactivate,
            body=EndingBody,
            answers=shown,
            changes=True,
            **shared,
        ),
        Endpoint(
            "DELETE",
            _ONE,
            WRITE,
            "Map nobody to a LiteLLM customer any more.",
            delete,
            answers=shown,
            changes=True,
            **shared,
        ),
    ]


@contextmanager
def _refusals() -> Iterator[None]:
    """409 for what only fails because of what is there already; others as everywhere."""
    try:
        yield
    except Rejected as refusal:
        if refusal.reason != TOO_MANY:
            raise
        raise Problem(409, refusal.reason, refusal.detail) from refusal


def _answer(asked: AuthorizedRequest, mapped: MappingResult, status: int = 200) -> web.Response:
    response = json_response(mapping_shown(mapped, asked.who.may_see), status)
    response.headers["ETag"] = tag_of(mapped.record)
    return response


def _customer(asked: AuthorizedRequest) -> str | None:
    return normalise_customer_id(asked.part("customer_id"))


def not_theirs() -> Problem:
    """One answer for a customer of another org and for one of nobody: it is no way to learn which ids there are."""
    return Problem(403, "other_org", "this credential may not see or map this LiteLLM customer (docs/access.md, Orgs)")


def _no_mapping(asked: AuthorizedRequest) -> Problem:
    if asked.who.orgs is not None:
        return not_theirs()
    return Problem(404, "no_mapping", "this LiteLLM customer is not mapped")


def record_told(record: Known) -> Any:
    """A customer's whole record, for the audit log."""
    return None if record is None else msgspec.to_builtins(record)
