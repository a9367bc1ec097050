"""`POST /webhooks/retry`: which requests wait for one another."""

import asyncio
from typing import Any, cast

import pytest

from connectors.api.dead_letters import DeadLetterHandlers, RetryBody
from connectors.http.endpoint import AuthorizedRequest, Principal
from connectors.operations.requeue_judge import RequeueResult


class HeldService:
    """Keeps each request until `go` is set; `running`: the requests inside, True = a dry run."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.running: list[bool] = []

    async def requeue(self, *_filters: object, dry_run: bool) -> tuple[RequeueResult, int]:
        self.running.append(dry_run)
        await self.go.wait()
        return RequeueResult(requeued=3), 3


@pytest.mark.parametrize(
    ("requests", "at_once"),
    [
        ((False, True), [False, True]),
        ((True, False), [True, False]),
        ((False, False), [False]),
        ((True, True), [True]),
    ],
    ids=["a-dry-run-during-a-requeue", "a-requeue-during-a-dry-run", "two-requeues", "two-dry-runs"],
)
async def test_a_dry_run_and_a_requeue_do_not_wait_for_each_other(
    requests: tuple[bool, ...], at_once: list[bool]
) -> None:
    service = HeldService()
    handlers = DeadLetterHandlers(cast("Any", service))
    tasks = [asyncio.create_task(handlers.retry(_request(dry_run=dry_run))) for dry_run in requests]
    for _ in range(10):
        await asyncio.sleep(0)
    assert service.running == at_once
    service.go.set()
    assert [answer.status for answer in await asyncio.gather(*tasks)] == [200 if dry else 202 for dry in requests]


def _request(*, dry_run: bool) -> AuthorizedRequest:
    request = AuthorizedRequest(cast("Any", None), Principal("key"), cast("Any", None), RetryBody(dry_run=dry_run))
    return cast("AuthorizedRequest", request)
