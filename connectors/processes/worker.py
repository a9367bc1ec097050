"""`meterbridge worker`: one role in this process, or a supervisor with one child process for each role.

In production every role is a process of its own. A child that ends is started again after a short wait. A child whose
parent is gone ends itself, so a killed supervisor leaves no process behind.
"""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from connectors.config.connections import postgres_url
from connectors.config.settings import Settings
from connectors.kafka.errors import says_away
from connectors.kafka.startup import KafkaWait
from schemas.errors import ConfigurationError
from streams.app import ROLES
from streams.runtime.event_loop import run_loop
from streams.runtime.partition_task import PartitionTask
from streams.runtime.role import EXIT_FATAL
from streams.runtime.run import RoleCrashed, run_role
from streams.runtime.shutdown import ASKED, STOP_S, StopSignal, run_until_told

log = structlog.get_logger(__name__)

PROJECT = "project"
#: A supervisor sets this variable for its child: the one role that the child runs. It is no setting.
CHILD = "METERBRIDGE_CHILD_ROLE"
#: Period at which a worker checks whether its partitions have changed, seconds.
_LOOK_S = 0.25
_PR_SET_PDEATHSIG = 1
_RESTART_S, _RESTART_CAP_S, _STEADY_S = 0.5, 10.0, 60.0


def run_worker(settings: Settings, roles: Sequence[str]) -> int:
    """Run roles until SIGTERM or SIGINT. Returns the exit code: 0 after a clean stop.

    Raises:
        ConfigurationError: the projector is one of the roles, and there is no Postgres; or this process is a supervisor's
            child and was asked for other roles than its own: a child with children would start processes without end.
    """
    own = os.environ.get(CHILD)
    if own is not None and list(roles) != [own]:
        sentence = (
            f"this process is a child that runs {own} alone, and was asked for {','.join(roles)}: it starts nothing"
        )
        raise ConfigurationError(CHILD, sentence)
    if PROJECT in roles:
        postgres_url(settings)
    if len(roles) == 1:
        return _run_one(settings, roles[0])
    return _supervise(roles, settings.metrics_port)


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
    from connectors.processes.worker_parts import (
        credit_upkeep_of,
        late_calls_of,
        learnt_ends_of,
        outgoing_webhooks_of,
        provider_health_of,
        summary_refresh_of,
        worker_parts,
    )

    async with worker_parts(settings, role, awaited) as parts:
        # The process runs. `partitions_opened` says later that it has work.
        log.info("worker_started", role=role, group=parts.group(role))
        running = ROLES[role](replace(parts, leave=word.end))
        stop = word.begun()
        beside = [asyncio.ensure_future(log_partitions(running.partition_tasks, role))]
        if role == PROJECT:
            late = late_calls_of(settings, running.partition_tasks, parts.sensors)
            beside.append(asyncio.ensure_future(late.watch()))
            ends = learnt_ends_of(settings, running.partition_tasks, parts.sensors)
            beside.append(asyncio.ensure_future(ends.watch()))
            beside.append(asyncio.ensure_future(credit_upkeep_of(settings, parts.sensors).watch()))
            summary = summary_refresh_of(settings, parts.sensors)
            beside.append(asyncio.ensure_future(summary.watch()))
            health = provider_health_of(settings, parts.sensors)
            beside.append(asyncio.ensure_future(health.watch()))
            if settings.outgoing_webhook_urls:
                webhooks = outgoing_webhooks_of(settings, parts.sensors)
                beside.append(asyncio.ensure_future(webhooks.watch()))
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


def _supervise(roles: Sequence[str], metrics_port: int) -> int:
    """Run a child process for each role. Their metrics ports are METRICS_PORT and the next ones."""
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in ASKED:
        signal.signal(number, stop)
    ports = {role: metrics_port + number if metrics_port else 0 for number, role in enumerate(roles)}
    children = {role: _start(role, ports[role]) for role in roles}
    started = dict.fromkeys(roles, time.monotonic())
    waits = dict.fromkeys(roles, _RESTART_S)
    while not stopping:
        time.sleep(0.1)
        for role, child in children.items():
            now = time.monotonic()
            if child.poll() is None:
                continue
            if now - started[role] > _STEADY_S:
                waits[role] = _RESTART_S
            if now - started[role] < waits[role]:
                continue
            log.warning("worker_restarted", role=role, code=child.returncode)
            waits[role] = min(waits[role] * 2, _RESTART_CAP_S)
            children[role], started[role] = _start(role, ports[role]), now
    for child in children.values():
        child.terminate()
    _wait(children)
    return 0


def _wait(children: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Return when all children have ended. Log those that ended with an error or had to be killed."""
    deadline = time.monotonic() + STOP_S + 1
    for role, child in children.items():
        try:
            code = child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            log.warning("worker_killed", role=role, seconds=STOP_S + 1)
            continue
        # A child whose interpreter is still starting has no signal handler yet: the signal itself ends it.
        if code != 0 and -code not in ASKED:
            log.warning("worker_ended_badly", role=role, code=code)


def _start(role: str, metrics_port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "connectors", "worker", "--only", role]
    environ = {**os.environ, "METRICS_PORT": str(metrics_port), CHILD: role}
    return subprocess.Popen(  # noqa: S603  # our own command
        command,
        env=environ,
        preexec_fn=_die_with_parent,  # noqa: PLW1509  # the supervisor has one thread
        stdin=subprocess.DEVNULL,
    )


def _die_with_parent() -> None:
    """Linux only. On other systems an orphan goes on until the next owner of its partitions fences it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
