"""A real sink or retry role that ends itself by SIGKILL at one step of a post: `python -m tests.faults.self_killing_worker ROLE
STEP`.

Everything is the product's own code, from its settings to its Kafka transaction; only the call at which the process
must die is wrapped. `-` as the step is a process that is killed from outside.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from aiokafka import ConsumerRecord

from connectors.config.settings import load_settings
from connectors.processes.worker_parts import worker_parts
from connectors.telemetry.logs import configure_logging
from schemas.records import LagoEvent
from streams.app import ROLES
from streams.core.delivery.verdicts import HttpResponse
from streams.delivery.lago_port import LagoEventsApi
from streams.runtime.event_loop import run_loop
from streams.runtime.role import Role
from streams.runtime.run import run_role

BEFORE_SEND, AFTER_ANSWER = "before_send", "after_answer"
BEFORE_COMMIT, RECORDS_WRITTEN, OFFSET_SENT = "before_commit", "records_written", "offset_sent"
COMMITTING, COMMITTED = "committing", "committed"

#: The call of the producer before which the process dies. The records are acknowledged by the broker when the
#: offset is sent, and both when the commit is.
_BEFORE = {
    BEFORE_COMMIT: "begin_transaction",
    RECORDS_WRITTEN: "send_offsets_to_transaction",
    OFFSET_SENT: "commit_transaction",
}
#: The text that the process prints when it has fetched records.
TAKES = "takes records"
#: Long enough to send the request, too short to get its response.
_UNDER_WAY_S = 0.003
#: The shortest session that a broker accepts, so that the next owner waits only a short time.
_SESSION_S = 6.0


def die(*_: object) -> NoReturn:
    """Kill this process, as an operating system does that runs out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("no one survives SIGKILL")


class MortalPoster:
    """The real client; the process dies before a batch is sent or after its response has arrived."""

    def __init__(self, poster: LagoEventsApi, step: str) -> None:
        self._poster = poster
        self._step = step

    async def post_batch(self, body: bytes) -> HttpResponse:
        if self._step == BEFORE_SEND:
            die()
        answer = await self._poster.post_batch(body)
        if self._step == AFTER_ANSWER:
            die()
        return answer

    async def get_event(self, transaction_id: str) -> LagoEvent | None:
        return await self._poster.get_event(transaction_id)

    async def healthy(self) -> bool:
        return await self._poster.healthy()


def mortal_work(work: Any, step: str) -> Any:
    """Return the role's own work, on whose producer the process dies at `step`."""
    opened, process = work.open, work.process

    async def process_mortal(records: Sequence[ConsumerRecord]) -> int:
        print(TAKES, flush=True)
        done_to: int = await process(records)
        return done_to

    async def open_mortal() -> int:
        expected: int = await opened()
        producer = work._own._writer._producer  # the default organisation's
        if step in _BEFORE:
            setattr(producer, _BEFORE[step], die)
        elif step in (COMMITTING, COMMITTED):
            producer.commit_transaction = _dying_commit(producer.commit_transaction, step)
        return expected

    work.open, work.process = open_mortal, process_mortal
    return work


def _dying_commit(commit: Callable[[], Any], step: str) -> Callable[[], Any]:
    async def dying() -> None:
        under_way = asyncio.ensure_future(commit())
        await asyncio.wait({under_way}, timeout=_UNDER_WAY_S if step == COMMITTING else None)
        die()

    return dying


def mortal_role(role: Role, step: str) -> Role:
    """Return the role, with its works and its session cut short."""
    make = role._make_work
    role._make_work = lambda partition: mortal_work(make(partition), step)
    role.app.conf.broker_session_timeout = _SESSION_S
    role.app.conf.broker_heartbeat_interval = _SESSION_S / 3
    return role


async def main(name: str, step: str) -> None:
    """Run until the end."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    async with worker_parts(settings, name) as parts:
        delivery = parts.delivery()
        delivery.wire = replace(delivery.wire, poster=MortalPoster(delivery.wire.poster, step))
        await run_role(mortal_role(ROLES[name](parts), step), asyncio.Event())


if __name__ == "__main__":
    run_loop(main(sys.argv[1], sys.argv[2]))
