"""`GET /customers/unmapped`: the customers whose usage is held."""

from datetime import datetime

from aiohttp import web
from pydantic import BaseModel

from connectors.http.endpoint import AuthorizedRequest, endpoint
from connectors.http.health import json_response
from connectors.operations.held_usage import UnmappedUsage


class UnmappedCustomer(BaseModel):
    """A customer whose usage waits for a mapping; `usd` is a decimal.

    Fields:
        id_kind: the field from which the id is, e.g. `end_user`.
        reason: why the usage waits now: `no_mapping`, `inactive`, `id_kind_not_mapped` or `mapping_not_kept`;
            docs/errors.md has the next step. Usage of a customer whose mapping is in force is not listed.
        calls: calls that wait.
        since: when the first waiting call was counted, ISO 8601; a late call may have ended long before.
    """

    litellm_customer_id: str
    id_kind: str
    reason: str
    calls: int
    usd: str
    since: datetime


class Unmapped(BaseModel):
    """At most 1000 customers, the highest cost first.

    Fields:
        customers: the customers, the highest cost first.
    """

    customers: list[UnmappedCustomer]


class HeldUsageHandlers:
    """`GET /customers/unmapped`."""

    def __init__(self, held_usage: UnmappedUsage) -> None:
        self._held_usage = held_usage

    @endpoint("GET", "/customers/unmapped", "mappings:read", answers={200: Unmapped})
    async def unmapped(self, _: AuthorizedRequest) -> web.Response:
        """List customers whose usage waits for a mapping, the highest cost first."""
        return json_response({"customers": await self._held_usage.unmapped()})
