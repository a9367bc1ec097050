"""`meterbridge worker`: one role in this process, or a supervisor with one child process for each role."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import structlog

from connectors.config.connections import postgres_url
from connectors.config.settings import Settings
from connectors.kafka.errors import says_away
from connectors.kafka.startup import KafkaWait
from connectors.processes.arenas import few_arenas
from connectors.processes.shared_memory import prepare
from connectors.processes.supervisor import supervise
from streams.app import ROLES
from streams.runtime.event_loop import run_loop
from streams.runtime.kept_up import kept_up
from streams.runtime.partition_task import PartitionTask
from streams.runtime.role import EXIT_FATAL
from streams.runtime.run import RoleCrashed, run_role
from streams.runtime.shutdown import StopSignal, run_until_told

log = structlog.get_logger(__name__)

PROJECT = "project"
#: Period at which a worker checks whether its partitions have changed, seconds.
_LOOK_S = 0.5


def run_worker(
    settings: Settings, roles: Sequence[str], reported: Callable[[Callable[[], int]], int] = lambda run: run()
) -> int:
    """Run roles until SIGTERM or SIGINT. Returns the exit code: 0 after a clean stop.

    The metrics ports of several roles are METRICS_PORT and the next ones.

    Args:
        reported: calls what runs a role, and turns an error that is expected into a message and an exit code.

    Raises:
        ConfigurationError: the projector is one of the roles, and there is no Postgres.
    """
    if PROJECT in roles:
        postgres_url(settings)
    few_arenas()
    if len(roles) == 1:
        return reported(partial(_run_one, settings, roles[0]))
    first = settings.metrics_port
    ports = {role: first + number if first else 0 for number, role in enumerate(roles)}
    own = {role: settings.model_copy(update={"metrics_port": port}) for role, port in ports.items()}
    return supervise(
        {role: partial(reported, partial(_run_one, own[role], role)) for role in roles}, partial(prepare, roles)
    )


def _run_one(settings: Settings, role: str) -> int:
    async def work(word: StopSignal) -> int:
        awaited = KafkaWait(settings.kafka_bootstrap_servers)
        while True:
            crash = await _run_until_crash(settings, role, word, awaited)
            if crash is None:
                log.info("worker_stopped", role=role)
                return 0
            if word.requested:
                log.warning("stopped_with_error", role=role, error=repr(crash))
                return 0
            if not says_away(crash):
                log.critical("worker_crashed", role=role, error=repr(crash))
                return EXIT_FATAL
            log.warning("worker_begins_again", role=role, error=repr(crash))
            awaited.log_waiting(crash)

    return run_until_told(work, run_loop)


async def _run_until_crash(settings: Settings, role: str, word: StopSignal, awaited: KafkaWait) -> BaseException | None:
    """Run a role, when Kafka answers, until its app crashes; the cause. None = it was asked to stop.

    All its parts are closed at the end, so that the role can start again in this process.
    """
    from connectors.processes.worker_parts import partition_reports_of, worker_parts

    async with worker_parts(settings, role, awaited) as parts:
        # The process runs. `partitions_opened` says later that it has work.
        log.info("worker_started", role=role, group=parts.group(role))
        running = ROLES[role](replace(parts, leave=word.end))
        stop = word.begun()
        works: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("log_partitions", partial(log_partitions, running.partition_tasks, role)),
            ("partition_reports", partition_reports_of(parts, role, running).watch),
        ]
        if role == PROJECT:
            from connectors.processes.projector_tasks import works_of

            works += works_of(settings, running.partition_tasks, parts.sensors)
        beside = [asyncio.ensure_future(kept_up(name, work)) for name, work in works]
        try:
            await run_role(running, stop)
        except RoleCrashed as crashed:
            return crashed.cause
        finally:
            for task in beside:
                task.cancel()
            word.idle()
    return None


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
