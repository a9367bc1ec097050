"""`meterbridge worker`: its roles in this process, or a supervisor with one child process for each role."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from connectors.config.connections import postgres_url
from connectors.config.settings import Settings
from connectors.config.types import MAX_PORT
from connectors.kafka.errors import says_away
from connectors.kafka.startup import KafkaWait
from connectors.processes.arenas import few_arenas
from connectors.processes.restart_pace import RestartPace
from connectors.processes.shared_memory import prepare
from connectors.processes.supervisor import Refuse, supervise
from schemas.errors import ConfigurationError, MeterbridgeError, TopicProblem
from streams.app import ROLES
from streams.runtime.cancellation import end, is_own_cancellation
from streams.runtime.event_loop import run_loop
from streams.runtime.garbage_collection import forget_frozen
from streams.runtime.kept_up import kept_up
from streams.runtime.partition_task import PartitionTask
from streams.runtime.role import EXIT_FATAL
from streams.runtime.role_counts import ROLE
from streams.runtime.run import RoleCrashed, run_role
from streams.runtime.shutdown import StopSignal, run_until_told

log = structlog.get_logger(__name__)

PROJECT = "project"
#: Errors of what the operator has set up. They do not pass by themselves, so a role that finds them when it begins ends.
_WRONG = (ConfigurationError, TopicProblem)
#: Period at which a worker checks whether its partitions have changed, seconds.
_LOOK_S = 0.5
#: Time limit for the tasks beside a role to end, seconds.
_BESIDE_S = 1.0


def run_worker(
    settings: Settings, roles: Sequence[str], reported: Callable[[Callable[[], int]], int] = lambda run: run()
) -> int:
    """Run roles until SIGTERM or SIGINT. Returns the exit code: 0 after a clean stop.

    The metrics ports of several roles are METRICS_PORT and the next ones.

    Args:
        reported: calls what runs a role, and turns an error that is expected into a message and an exit code.

    Raises:
        ConfigurationError: the projector is one of the roles, and there is no Postgres; there are not enough ports behind METRICS_PORT; a
            role in a process of its own cannot begin, because of a port in use, for example.
        TopicProblem: the same, because of a topic.
    """
    if PROJECT in roles:
        postgres_url(settings)
    few_arenas()
    first = settings.metrics_port
    if first + len(roles) - 1 > MAX_PORT:
        detail = f"METRICS_PORT {first} is too high: {len(roles)} roles take a port each, this one and the next ones"
        raise ConfigurationError("METRICS_PORT", detail)
    ports = {role: first + number if first else 0 for number, role in enumerate(roles)}
    own = {role: settings.model_copy(update={"metrics_port": port}) for role, port in ports.items()}
    if len(roles) == 1 or settings.worker_processes == "one":
        return _run_here(own, reported)
    return supervise(
        {role: partial(_run_child, {role: own[role]}, reported) for role in roles}, partial(prepare, roles)
    )


def _run_child(roles: Mapping[str, Settings], reported: Callable[[Callable[[], int]], int], refuse: Refuse) -> int:
    """Run a role in a process of its own; its parent reports why it cannot begin, once for all roles. The exit code."""

    def to_parent(run: Callable[[], int]) -> int:
        try:
            return run()
        except _WRONG as error:
            return refuse(error)

    return _run_here(roles, lambda run: reported(partial(to_parent, run)))


def _run_here(roles: Mapping[str, Settings], reported: Callable[[Callable[[], int]], int]) -> int:
    """Run roles in this process until the stop signal; the exit code. `roles`: the settings of each.

    An error that ends a role alone in its process ends the process. Of several, only that role is started again, unless it cannot
    even begin: then a setting or a topic is wrong, and the process ends. `reported`: see `run_worker`.
    """

    async def work(word: StopSignal) -> int:
        run = _run_role if len(roles) == 1 else _run_role_again
        tasks = {role: asyncio.ensure_future(run(settings, role, word)) for role, settings in roles.items()}
        stopping = asyncio.ensure_future(word.event.wait())
        await asyncio.wait({stopping, *tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not word.requested:
            return next(_code_of(role, task, reported) for role, task in tasks.items() if task.done())
        # A role that waits for Kafka has nothing to finish, and does not notice the signal.
        finishing = [task for role, task in tasks.items() if word.has_begun(role)]
        return max(await asyncio.gather(*finishing), default=0)

    return run_until_told(work, run_loop)


def _code_of(role: str, task: asyncio.Future[int], reported: Callable[[Callable[[], int]], int]) -> int:
    """The exit code of a role that has ended. An error is reported here, while the event loop still runs: to close the loop would
    wait without end for the threads and tasks of Kafka's clients of the other roles."""
    try:
        return reported(task.result)
    except (Exception, asyncio.CancelledError) as error:  # it ends the process
        log.critical("worker_crashed", role=role, error=repr(error), exc_info=error)
        return EXIT_FATAL


async def _run_role_again(settings: Settings, role: str, word: StopSignal) -> int:
    """Run a role until the stop signal, beside other roles in this process; any end before it starts the role again. Returns 0.

    Raises:
        ConfigurationError, TopicProblem: what the role needs is wrong, and it has not worked in this process yet.
    """
    ROLE.set(role)
    pace = RestartPace(time.monotonic())
    while True:
        try:
            code = await _run_role(settings, role, word, alone=False)
        except (Exception, asyncio.CancelledError) as error:
            if is_own_cancellation(error) or not (word.requested or word.has_ever_begun(role)):
                raise
            # The other roles go on, whatever is wrong with this one: a topic may have been deleted, or its port be taken.
            expected = isinstance(error, MeterbridgeError)
            log.critical("worker_crashed", role=role, error=repr(error), exc_info=None if expected else error)
            code = EXIT_FATAL
        if word.requested:
            return 0
        forget_frozen()
        await asyncio.sleep(pace.wait_s(time.monotonic()))
        log.warning("worker_restarted", role=role, code=code)
        pace.restarted(time.monotonic())


async def _run_role(settings: Settings, role: str, word: StopSignal, *, alone: bool = True) -> int:
    """Run a role until the stop signal or an error ends it, and again while Kafka is away; the exit code.

    Kafka may answer one of the clients and not the other, because of a name or a certificate that only one of them accepts. So
    the role does not begin again at once each time. A role that has worked, alone in its process, begins again also if a topic is
    missing then: a broker that has just started may not list all of them.

    Raises:
        ConfigurationError, TopicProblem: what the role needs is wrong, and it has not worked in this process yet, or is not alone.
    """
    awaited, clock = KafkaWait(settings.kafka_bootstrap_servers), asyncio.get_running_loop().time
    pace = RestartPace(clock())
    while True:
        crash: BaseException | None
        try:
            crash = await _run_until_crash(settings, role, word, awaited, alone=alone)
            passes = says_away(crash)
        except _WRONG as error:
            if not (alone and word.has_ever_begun(role)):
                raise
            crash, passes = error, True
        if crash is None:
            log.info("worker_stopped", role=role)
            return 0
        if word.requested:
            log.warning("stopped_with_error", role=role, error=repr(crash))
            return 0
        if isinstance(crash, _PartitionFailed):  # it is in the log
            return EXIT_FATAL
        if not passes:
            log.critical("worker_crashed", role=role, error=repr(crash))
            return EXIT_FATAL
        log.warning("worker_begins_again", role=role, error=repr(crash))
        forget_frozen()
        if says_away(crash):
            awaited.log_waiting(crash)
        await asyncio.sleep(pace.wait_s(clock()))
        pace.restarted(clock())


class _PartitionFailed(RuntimeError):
    """An error ended a partition task of a role that shares its process."""


async def _run_until_crash(
    settings: Settings, role: str, word: StopSignal, awaited: KafkaWait, *, alone: bool
) -> BaseException | None:
    """Run a role, when Kafka answers, until its app crashes; the cause. None = it was asked to stop.

    All its parts are closed at the end, so that the role can start again in this process. Nothing that a failed partition
    task had begun is committed by that: its next owner begins where it did.
    """
    from connectors.processes.worker_parts import partition_reports_of, worker_parts

    async with worker_parts(settings, role, awaited) as parts, AsyncExitStack() as closing:
        # The process runs. `partitions_opened` says later that it has work.
        log.info("worker_started", role=role, group=parts.group(role))
        failed = asyncio.Event()
        running = ROLES[role](replace(parts, leave=word.end if alone else lambda _code: failed.set()))
        stop = word.begun(role)
        works: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("log_partitions", partial(log_partitions, running.partition_tasks, role)),
            ("partition_reports", partition_reports_of(parts, role, running).watch),
        ]
        if role == PROJECT:
            from connectors.processes.projector_tasks import works_of

            works += works_of(settings, running.partition_tasks, parts.sensors, closing)
        beside: list[asyncio.Future[Any]] = [asyncio.ensure_future(kept_up(name, work)) for name, work in works]
        ending = asyncio.Event()
        beside.append(asyncio.ensure_future(_set_after(ending, stop, failed)))
        try:
            await run_role(running, ending)
        except RoleCrashed as crashed:
            return crashed.cause
        finally:
            await end(beside, _BESIDE_S)
            word.idle(role)
    return _PartitionFailed() if failed.is_set() else None


async def _set_after(event: asyncio.Event, *causes: asyncio.Event) -> None:
    """Set `event` once one of `causes` is set."""
    waiting = [asyncio.ensure_future(cause.wait()) for cause in causes]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    event.set()


async def log_partitions(
    partition_tasks: Mapping[int, PartitionTask] | Mapping[str, PartitionTask], role: str, every_s: float = _LOOK_S
) -> None:
    """Log, until cancelled, which partitions are open: each time they have changed and two checks in a row agree."""
    logged = before = frozenset[int | str]()
    while True:
        opened = frozenset(
            partition for partition, partition_task in partition_tasks.items() if partition_task.expected is not None
        )
        if opened == before != logged:
            log.info("partitions_opened", role=role, opened=sorted(opened), assigned=len(partition_tasks))
            logged = opened
        before = opened
        await asyncio.sleep(every_s)
