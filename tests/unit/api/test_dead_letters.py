"""`POST /webhooks/retry`: which requests run beside one another."""

import asyncio
from typing import Any, cast

import pytest

from connectors.api.dead_letters import DeadLetterHandlers, RetryBody
from connectors.http.endpoint import AuthorizedRequest, Principal
from connectors.operations.requeue_judge import RequeueResult
from schemas.errors import Unavailable
from tests.support.eventually import within


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
    "first_is_dry", [True, False], ids=["a-requeue-during-a-dry-run", "a-dry-run-during-a-requeue"]
)
async def test_a_dry_run_and_a_requeue_do_not_wait_for_each_other(*, first_is_dry: bool) -> None:
    service = HeldService()
    handlers = DeadLetterHandlers(cast("Any", service))
    kinds = [first_is_dry, not first_is_dry]
    tasks = [asyncio.create_task(handlers.retry(_request(dry_run=dry_run))) for dry_run in kinds]
    await _turns()
    assert service.running == kinds
    service.go.set()
    assert [answer.status for answer in await asyncio.gather(*tasks)] == [200 if dry else 202 for dry in kinds]


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry-run", "requeue"])
async def test_a_second_request_of_the_kind_is_refused_at_once_and_may_come_again(*, dry_run: bool) -> None:
    """A second requeue in the process would fence the first, which may wait a minute for the meter and the projector."""
    service = HeldService()
    handlers = DeadLetterHandlers(cast("Any", service))
    first = asyncio.create_task(handlers.retry(_request(dry_run=dry_run)))
    await _turns()
    async with within(5):
        with pytest.raises(Unavailable, match="requeue_in_progress"):
            await handlers.retry(_request(dry_run=dry_run))
    assert service.running == [dry_run]
    service.go.set()
    assert (await first).status == (await handlers.retry(_request(dry_run=dry_run))).status == (200 if dry_run else 202)


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def _request(*, dry_run: bool) -> AuthorizedRequest:
    request = AuthorizedRequest(cast("Any", None), Principal("key"), cast("Any", None), RetryBody(dry_run=dry_run))
    return cast("AuthorizedRequest", request)
