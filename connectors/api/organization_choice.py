"""Sends each request about an org to the Lago organisation that the org is in (docs/adr/0044)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from aiohttp import web
from pydantic import BaseModel

from connectors.http.endpoint import AuthorizedRequest, Endpoint, Handler, Principal, other_org
from connectors.http.problem import Problem
from schemas.organizations import DEFAULT, DEFAULT_LABEL
from streams.core.mapping.held_reasons import UNKNOWN_ORGANIZATION

#: The query parameter of endpoints that are about no single org.
PARAMETER = "organization"


class OrganizationQuery(BaseModel):
    """Which organisation of Lago is meant where there are several; `""` = the one of `LAGO_API_URL`."""

    organization: str = ""


def by_organization(
    endpoints: Mapping[str, Sequence[Endpoint]], organization_of: Callable[[str], str]
) -> list[Endpoint]:
    """Return the endpoints of the default organisation, whose requests go to the handlers of the right one.

    The organisation is that of the org in the path, or in the member `external_id` of the body; else the one that the
    query parameter `organization` names.

    Args:
        endpoints: the same endpoints of each organisation, in the same order.
        organization_of: the organisation of an org.
    """
    chosen = []
    for number, endpoint in enumerate(endpoints[DEFAULT]):
        handlers = {name: own[number].handler for name, own in endpoints.items()}
        refuses = {**endpoint.refuses, 422: (*endpoint.refuses.get(422, ()), UNKNOWN_ORGANIZATION)}
        handler = partial(_handled, endpoint, handlers, organization_of)
        chosen.append(replace(endpoint, handler=handler, refuses=refuses))
    return chosen


async def _handled(
    endpoint: Endpoint,
    handlers: Mapping[str, Handler],
    organization_of: Callable[[str], str],
    authorized: AuthorizedRequest,
) -> web.StreamResponse:
    name = _organization(endpoint, organization_of, authorized)
    if not _may_see(authorized.principal, name, organization_of):
        raise other_org()
    handler = handlers.get(name)
    if handler is None:
        raise Problem(422, UNKNOWN_ORGANIZATION, "this Lago organisation is not configured")
    return await handler(authorized)


def _may_see(principal: Principal, name: str, organization_of: Callable[[str], str]) -> bool:
    """Return whether the caller may see what is common to all orgs of an organisation, such as plans and their prices.

    A caller without any org sees the default organisation.
    """
    if principal.orgs is None:
        return True
    return name in {organization_of(org) for org in principal.orgs} or (not principal.orgs and name == DEFAULT)


def _organization(endpoint: Endpoint, organization_of: Callable[[str], str], authorized: AuthorizedRequest) -> str:
    if endpoint.org:
        return organization_of(authorized.part(endpoint.org))
    external_id = getattr(authorized.body, "external_id", None)
    if isinstance(external_id, str):
        return organization_of(external_id)
    named = authorized.request.query.get(PARAMETER, DEFAULT)
    return DEFAULT if named == DEFAULT_LABEL else named
