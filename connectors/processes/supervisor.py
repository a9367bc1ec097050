"""Runs each role of a worker in a child process, and restarts a child that ended.

The children are forked from this process after it has loaded what all of them need. So the memory of the modules is shared: four
processes take about as much as two that are started one by one. A child whose parent is gone ends itself, so a killed supervisor
leaves no process behind.

A role that cannot begin at all, because of a setting or a topic, sends its error to this process, which ends all roles and raises the
error once. Later the same error only restarts the role: what is wrong then was right before, so it may pass.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final, NamedTuple

import structlog

from connectors.processes.restart_pace import RestartPace
from schemas.errors import MeterbridgeError
from streams.runtime.shutdown import ASKED, STOP_S

log = structlog.get_logger(__name__)

_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.1
#: The exit code of a child that has sent its parent why it cannot begin.
CANNOT_BEGIN: Final = os.EX_CONFIG
#: Forking is safe while a process has one thread. On other systems than Linux, system libraries start their own
#: threads.
if sys.platform == "linux":
    _CONTEXT = multiprocessing.get_context("fork")
else:
    _CONTEXT = multiprocessing.get_context("spawn")


#: Tells the parent why a role cannot begin. Returns the exit code with which the child then ends.
Refuse = Callable[[MeterbridgeError], int]


class _Child(NamedTuple):
    """The process of a role, and where it sends why it cannot begin."""

    process: BaseProcess
    told: Connection

    def error(self) -> MeterbridgeError | None:
        """Why the ended role could not begin; None = it ended for another reason."""
        if self.process.exitcode != CANNOT_BEGIN:
            return None
        kind, reason, detail = self.told.recv()
        return kind(reason, detail)  # type: ignore[no-any-return]


def supervise(roles: Mapping[str, Callable[[Refuse], int]], prepare: Callable[[], None] = lambda: None) -> int:
    """Run each role in a child process until SIGTERM or SIGINT. The process must have one thread.

    Args:
        roles: by role, the function that its child runs; it returns the child's exit code.
        prepare: called before the children are made, so that they share everything that it loads.

    Returns:
        The exit code, 0 after the signal.

    Raises:
        MeterbridgeError: a role that was started for the first time cannot begin.
    """
    stopping = False
    cannot: MeterbridgeError | None = None

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in ASKED:
        signal.signal(number, stop)
    prepare()
    children = {role: _start(run) for role, run in roles.items()}
    paces = {role: RestartPace(time.monotonic()) for role in roles}
    restarted: set[str] = set()
    while not stopping and cannot is None:
        time.sleep(_LOOK_S)
        for role, child in children.items():
            now_s = time.monotonic()
            if child.process.is_alive() or paces[role].wait_s(now_s):
                continue
            error = child.error()
            if error is not None and role not in restarted:
                cannot = error
                break
            if error is not None:
                log.critical("worker_crashed", role=role, error=repr(error))
            log.warning("worker_restarted", role=role, code=child.process.exitcode)
            restarted.add(role)
            paces[role].restarted(now_s)
            child.told.close()
            children[role] = _start(roles[role])
    for child in children.values():
        child.process.terminate()
    _wait({role: child.process for role, child in children.items()})
    if cannot is not None and not stopping:
        raise cannot
    return 0


def _wait(children: Mapping[str, BaseProcess]) -> None:
    """Return when all children have ended. Log those that ended with an error or had to be killed."""
    deadline = time.monotonic() + STOP_S + 1
    for role, child in children.items():
        child.join(max(0.1, deadline - time.monotonic()))
        if child.is_alive():
            child.kill()
            log.warning("worker_killed", role=role, seconds=STOP_S + 1)
        # A child that has not installed its signal handler yet is ended by the signal itself.
        elif child.exitcode not in (0, CANNOT_BEGIN, *(-number for number in ASKED)):
            log.warning("worker_ended_badly", role=role, code=child.exitcode)


def _start(run: Callable[[Refuse], int]) -> _Child:
    told, tell = _CONTEXT.Pipe(duplex=False)
    # If this process ends by an error, its children are ended too.
    process = _CONTEXT.Process(target=_run, args=(run, tell, os.getpid()), daemon=True)
    # A signal that a child gets before it has installed its handlers is delayed, so that it does not call the parent's
    # handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
    tell.close()
    return _Child(process, told)


def _run(run: Callable[[Refuse], int], tell: Connection, parent: int) -> None:
    for number in ASKED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
    _die_with(parent)

    def refuse(error: MeterbridgeError) -> int:
        tell.send((type(error), error.reason, error.detail))
        return CANNOT_BEGIN

    sys.exit(run(refuse))


def _die_with(parent: int) -> None:
    """Linux only. On other systems an orphan continues until the next owner of its partitions fences it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(0)
