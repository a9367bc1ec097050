"""Runs each role of a worker in a child process, and restarts a child that ended.

The children are forked from this process after it has loaded what all of them need. So the memory of the modules is shared: four
processes take about as much as two that are started one by one. A child whose parent is gone ends itself, so a killed supervisor
leaves no process behind.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from typing import Final

import structlog

from connectors.processes.restart_pace import RestartPace
from streams.runtime.shutdown import ASKED, STOP_S

log = structlog.get_logger(__name__)

_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.1
#: The exit code of a child that has said which setting is wrong: a port in use, for example. To start it again would not help.
WRONG_SETTING: Final = 2
#: Forking is safe while a process has one thread. On other systems than Linux, system libraries start their own
#: threads.
if sys.platform == "linux":
    _CONTEXT = multiprocessing.get_context("fork")
else:
    _CONTEXT = multiprocessing.get_context("spawn")


def supervise(roles: Mapping[str, Callable[[], int]], prepare: Callable[[], None] = lambda: None) -> int:
    """Run each role in a child process until SIGTERM or SIGINT. The process must have one thread.

    Args:
        roles: by role, the function that its child runs; it returns the child's exit code.
        prepare: called before the children are made, so that they share everything that it loads.

    Returns:
        The exit code: 0 after the signal, `WRONG_SETTING` if a child that was started for the first time ended with it.
    """
    code: int | None = None

    def stop(*_: object) -> None:
        nonlocal code
        code = 0

    for number in ASKED:
        signal.signal(number, stop)
    prepare()
    children = {role: _start(run) for role, run in roles.items()}
    paces = {role: RestartPace(time.monotonic()) for role in roles}
    restarted: set[str] = set()
    while code is None:
        time.sleep(_LOOK_S)
        for role, child in children.items():
            now_s = time.monotonic()
            if child.is_alive() or paces[role].wait_s(now_s):
                continue
            if child.exitcode == WRONG_SETTING and role not in restarted:
                code = WRONG_SETTING
                break
            log.warning("worker_restarted", role=role, code=child.exitcode)
            restarted.add(role)
            paces[role].restarted(now_s)
            children[role] = _start(roles[role])
    for child in children.values():
        child.terminate()
    _wait(children)
    return code


def _wait(children: Mapping[str, BaseProcess]) -> None:
    """Return when all children have ended. Log those that ended with an error or had to be killed."""
    deadline = time.monotonic() + STOP_S + 1
    for role, child in children.items():
        child.join(max(0.1, deadline - time.monotonic()))
        if child.is_alive():
            child.kill()
            log.warning("worker_killed", role=role, seconds=STOP_S + 1)
        # A child that has not installed its signal handler yet is ended by the signal itself.
        elif child.exitcode and -child.exitcode not in ASKED:
            log.warning("worker_ended_badly", role=role, code=child.exitcode)


def _start(run: Callable[[], int]) -> BaseProcess:
    # If this process ends by an error, its children are ended too.
    child = _CONTEXT.Process(target=_run, args=(run, os.getpid()), daemon=True)
    # A signal that a child gets before it has installed its handlers is delayed, so that it does not call the parent's
    # handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)
    try:
        child.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
    return child


def _run(run: Callable[[], int], parent: int) -> None:
    for number in ASKED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
    _die_with(parent)
    sys.exit(run())


def _die_with(parent: int) -> None:
    """Linux only. On other systems an orphan continues until the next owner of its partitions fences it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(0)
