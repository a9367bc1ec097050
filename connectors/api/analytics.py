"""Usage in numbers over HTTP: sums of calls by day, user, org and more, as JSON or CSV."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from connectors.http.endpoint import AuthorizedRequest, missing_scope, other_org
from connectors.http.health import json_response
from connectors.http.own_user import acts_for_all, own_endpoint
from connectors.operations.csv_text import Exact, csv_text
from connectors.operations.usage_report import GROUPS_OF_USER, UsageReport, usage_of_all, usage_of_user
from connectors.postgres.pool import Database

READ: Final = "analytics:read"


class UsageQuery(BaseModel):
    """Which usage.

    Fields:
        days: the last days, UTC, today included.
        group_by: what the calls are grouped by.
        limit: groups at most, those that are billed most; days are all shown.
        format: `csv` as the header `Accept: text/csv`.
    """

    days: Annotated[int, Field(ge=1, le=366)] = 7
    group_by: Literal["day", "user", "org", "provider", "model", "team", "key", "tag"] = "day"
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    format: Literal["json", "csv"] = "json"


class UsageGroup(BaseModel):
    """The calls of one group; it also has a member with the name of `group_by` and the group's value.

    Fields:
        calls: all reports of calls, also those that are not billed.
        successes: calls that succeeded.
        failures: calls that failed.
        own_key_calls: calls on a provider key or a subscription of the user's own.
        tokens_input, tokens_output: input and output tokens of the calls.
        total_tokens: input and output tokens together.
        cached_tokens: input tokens that the provider read from its cache; part of `tokens_input`.
        reasoning_tokens: output tokens that the model used to think; part of `tokens_output`.
        provider_cost_usd: LiteLLM's cost, without calls on users' own keys or subscriptions, whose cost is `own_key_cost_usd`.
        own_key_cost_usd: LiteLLM's cost of the calls on users' own keys or subscriptions, US dollars.
        billed_usd: what the calls are billed at; `margin_usd` is it without `provider_cost_usd`.
        margin_usd: `billed_usd` minus `provider_cost_usd`; below 0 = billed at a loss.
        success_rate, own_key_share: decimals from 0 to 1; null = there are no such calls.
        avg_latency_ms: mean milliseconds of a successful call, a decimal; null = there are no such calls.
        p95_latency_ms: less than 19 % off; null = it is not known for this group.
        tokens_per_second: output tokens of successful calls by their seconds.
    """

    calls: int
    successes: int
    failures: int
    own_key_calls: int
    tokens_input: int
    tokens_output: int
    total_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    provider_cost_usd: str
    own_key_cost_usd: str
    billed_usd: str
    margin_usd: str
    success_rate: str | None
    avg_latency_ms: str | None
    p95_latency_ms: int | None
    tokens_per_second: str | None
    own_key_share: str | None


class UsageAnswer(BaseModel):
    """Usage of `[first_day, last_day]`.

    Fields:
        first_day, last_day: first and last day, UTC, both included.
        group_by: what the rows are grouped by.
        groups: how many groups there are; `rows` has `limit` of them at most.
        refreshed_at: all calls that were in the usage log then are counted; null = none yet.
        rows: one entry for each group.
    """

    first_day: str
    last_day: str
    group_by: str
    groups: int
    refreshed_at: datetime | None
    rows: list[UsageGroup]


class AnalyticsHandlers:
    """`/api/v1/analytics/usage`.

    Args:
        database: raises ConfigurationError if the deployment has no Postgres.
        now: timezone-aware.
    """

    def __init__(self, database: Callable[[], Database], now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    @own_endpoint(
        "GET",
        "/api/v1/analytics/usage",
        READ,
        query=UsageQuery,
        answers={200: UsageAnswer},
        also_csv=True,
    )
    async def usage(self, authorized: AuthorizedRequest) -> web.Response:
        """Sum up calls, tokens, costs, success and latency of the last days; a signed-in user sees its own."""
        asked: UsageQuery = authorized.query
        last = self._now().date()
        first = last - timedelta(days=asked.days - 1)
        report = await self._report(authorized, asked, first, last)
        rows = [row.as_object(asked.group_by) for row in report.rows]
        if asked.format == "csv" or "text/csv" in authorized.request.headers.get("Accept", ""):
            return _as_csv(asked.group_by, rows)
        head = {"first_day": first.isoformat(), "last_day": last.isoformat(), "group_by": asked.group_by}
        return json_response({**head, "groups": report.groups, "refreshed_at": report.refreshed_at, "rows": rows})

    async def _report(self, authorized: AuthorizedRequest, asked: UsageQuery, first: Any, last: Any) -> UsageReport:
        if acts_for_all(authorized, READ):
            return await usage_of_all(self._database(), first, last, asked.group_by, asked.limit)
        if not (user := authorized.principal.user):
            raise other_org()
        if asked.group_by not in GROUPS_OF_USER:
            raise missing_scope(READ, f"your own usage is grouped by {', '.join(GROUPS_OF_USER)}")
        return await usage_of_user(self._database(), first, last, asked.group_by, asked.limit, user)


def _as_csv(group_by: str, rows: list[dict[str, Any]]) -> web.Response:
    numbers = list(UsageGroup.model_fields)
    cells = [[row[group_by], *(None if row[name] is None else Exact(row[name]) for name in numbers)] for row in rows]
    text = csv_text([group_by, *numbers], cells)
    headers = {"Content-Disposition": f'attachment; filename="usage-by-{group_by}.csv"'}
    return web.Response(text=text, content_type="text/csv", charset="utf-8", headers=headers)
