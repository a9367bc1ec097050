"""`GET /webhooks/stats`: how many calls and events are in each state."""

from aiohttp import web
from pydantic import BaseModel

from connectors.http.endpoint import AuthorizedRequest, endpoint
from connectors.http.health import json_response
from connectors.operations.pipeline_counts import PipelineCounts


class Decided(BaseModel):
    """The calls with one decision of the meter; `usd` is a decimal."""

    calls: int
    usd: str


class Stats(BaseModel):
    """Calls and events by their state, counted since the ledgers exist, except `rejected_by_reason`; ages in seconds.

    Fields:
        received: elements that became records of the raw topic.
        accepted: calls that the meter counted.
        duplicate: reports of calls that were counted before.
        rejected: calls that the meter rejected. `received` is the sum of `accepted`, `duplicate` and `rejected`.
        unbilled: the part of `accepted` that is not billed.
        carried: failed attempts in `accepted` whose cost is billed with the successful call after them.
        by_decision: `accepted` calls by the meter's decision (docs/litellm.md); calls that were counted before
            releases with this field are missing.
        rejected_by_reason: the refusals in the topic `litellm.usage.rejected`, by reason (docs/errors.md). It is not
            `rejected` by reason: it has also the refusals of the ingress, which are not in `received`, and `cost_differs`,
            which are in `duplicate`. It has those that were requeued or dismissed since, and only those that the
            topic still keeps. Elements without any field of a call may share a refusal.
        held_windows: of all ledgers, at their last commits.
        held_over_bound: partitions that hold more windows than `HELD_IN_MEMORY`.
        pending: events that Lago has not accepted yet.
        delivered: events that Lago accepted.
        retrying: events that are sent again.
        dead: events that Lago refused for good.
        oldest_age_seconds: age of the oldest record that is not processed yet.
        oldest_age_seconds_by_topic: the same for each topic.
    """

    received: int
    accepted: int
    duplicate: int
    rejected: int
    unbilled: int
    carried: int
    by_decision: dict[str, Decided]
    rejected_by_reason: dict[str, int]
    held_windows: int
    held_over_bound: list[int]
    pending: int
    delivered: int
    retrying: int
    dead: int
    oldest_age_seconds: float
    oldest_age_seconds_by_topic: dict[str, float]


class PipelineCountsHandlers:
    """`GET /webhooks/stats`."""

    def __init__(self, pipeline_counts: PipelineCounts) -> None:
        self._pipeline_counts = pipeline_counts

    @endpoint("GET", "/webhooks/stats", "stats:read", answers={200: Stats})
    async def stats(self, _: AuthorizedRequest) -> web.Response:
        """Show how many calls and events are in each state."""
        return json_response(await self._pipeline_counts.now())
