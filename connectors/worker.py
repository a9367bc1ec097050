"""`meterbridge worker`: one role in this process, or a child process a role, watched over.

Every role is its own process in production. A child that ends is started again after a short wait; a
child whose parent is gone ends itself, so a killed supervisor leaves nobody behind.
"""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from connectors.postgres.pool import postgres_url
from connectors.settings import Settings
from streams.app import ROLES
from streams.lanes import Lane
from streams.loop import run_loop
from streams.roles import EXIT_FATAL
from streams.running import run_role

log = structlog.get_logger(__name__)

#: SIGTERM to exit takes less than this, whatever hangs.
STOP_S = 8.0
PROJECT = "project"
#: How often a worker looks whether its partitions are others.
_LOOK_S = 0.25
_ASKED = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1
_RESTART_S, _RESTART_CAP_S, _STEADY_S = 0.5, 10.0, 60.0


def run_worker(settings: Settings, roles: Sequence[str]) -> int:
    """Run roles until SIGTERM or SIGINT; the exit code: 0 after a clean stop.

    Raises:
        ConfigurationError: the projector is among them, and there is no Postgres.
    """
    if PROJECT in roles:
        postgres_url(settings)
    if len(roles) == 1:
        return _run_one(settings, roles[0])
    return _supervise(roles, settings.metrics_port)


def _run_one(settings: Settings, role: str) -> int:
    from connectors.wiring import late_calls_of, learnt_ends_of, worker_parts

    async def main() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        # Nothing has begun yet, and a thread that asks an absent broker cannot be cancelled.
        _on_signal(loop, os._exit, 0)
        async with worker_parts(settings, role) as parts:
            _on_signal(loop, _ask_to_stop, loop, stop)
            # That it runs, no more: `partitions_opened` says when it has work.
            log.info("worker_started", role=role, group=parts.group(role))
            running = ROLES[role](parts)
            beside = [asyncio.ensure_future(tell_partitions(running.lanes, role))]
            if role == PROJECT:
                late = late_calls_of(settings, running.lanes, parts.sensors)
                beside.append(asyncio.ensure_future(late.watch()))
                ends = learnt_ends_of(settings, running.lanes, parts.sensors)
                beside.append(asyncio.ensure_future(ends.watch()))
            try:
                await run_role(running, stop)
            except RuntimeError as error:
                log.critical("worker_crashed", role=role, error=repr(error.__cause__))
                return EXIT_FATAL
            finally:
                for task in beside:
                    task.cancel()
        log.info("worker_stopped", role=role)
        return 0

    code = run_loop(main())
    # Threads of a Kafka client that waits for a broker must not keep a stopped worker alive.
    sys.stderr.flush()
    os._exit(code)


async def tell_partitions(lanes: Mapping[int, Lane] | Mapping[str, Lane], role: str, every_s: float = _LOOK_S) -> None:
    """Log for ever which of the assigned partitions have an open lane: whenever they are others, and have settled."""
    told = before = frozenset[int | str]()
    while True:
        opened = frozenset(partition for partition, lane in lanes.items() if lane.expected is not None)
        if opened == before != told:
            log.info("partitions_opened", role=role, opened=sorted(opened), assigned=len(lanes))
            told = opened
        before = opened
        await asyncio.sleep(every_s)


def _on_signal(loop: asyncio.AbstractEventLoop, do: Callable[..., object], *arguments: object) -> None:
    for number in _ASKED:
        loop.add_signal_handler(number, do, *arguments)


def _ask_to_stop(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    stop.set()
    loop.call_later(STOP_S, _give_up)


def _give_up() -> None:
    log.error("worker_stop_timed_out", seconds=STOP_S)
    os._exit(EXIT_FATAL)


def _supervise(roles: Sequence[str], metrics_port: int) -> int:
    """A child a role; each gets its own metrics port, counted up from METRICS_PORT."""
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in _ASKED:
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
    return _wait(list(children.values()))


def _wait(children: list[subprocess.Popen[bytes]]) -> int:
    deadline = time.monotonic() + STOP_S + 1
    codes = []
    for child in children:
        try:
            code = child.wait(max(0.1, deadline - time.monotonic()))
            # A child that is still importing has no handler yet and ends by the signal itself, with nothing to close.
            codes.append(0 if -code in _ASKED else code)
        except subprocess.TimeoutExpired:
            child.kill()
            codes.append(EXIT_FATAL)
    return max((abs(code) for code in codes), default=0)


def _start(role: str, metrics_port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "connectors", "worker", "--only", role]
    environ = {**os.environ, "METRICS_PORT": str(metrics_port)}
    return subprocess.Popen(  # noqa: S603  # our own command
        command,
        env=environ,
        preexec_fn=_die_with_parent,  # noqa: PLW1509  # the supervisor has one thread
        stdin=subprocess.DEVNULL,
    )


def _die_with_parent() -> None:
    """Linux only; elsewhere an orphan goes on, and is fenced by the next owner of its partitions."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
