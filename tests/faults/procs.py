"""Processes of the product under faults: each in its own process group, with its output in a file, and restarted when
it ends.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support import guard, warm
from tests.support.eventually import PATIENCE

#: SIGTERM to exit, at most, on a machine that has nothing else to do.
STOP_LIMIT_S = 10.0
#: How long after its end a process is restarted.
RESTART_S = 0.5
_POLL_S = 0.02
_NOTHING = Path("/nonexistent")


@dataclass(frozen=True, slots=True)
class Death:
    """The end of one process.

    Fields:
        at_s: on the run's clock, 0 = the load began.
        code: exit code, negative for a signal.
        cause: `killed`, `terminated`, or `by itself`.
        took_s: from the signal to the end.
    """

    name: str
    at_s: float
    code: int
    cause: str
    took_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.at_s:6.1f} s  {self.name} {self.cause}, code {self.code}, {self.took_s:.1f} s after the signal"


class Process:
    """A command that must run; only the holder of `busy` kills, freezes and stops it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environ: Mapping[str, str],
        folder: Path,
        clock: Callable[[], float],
        ready: Callable[[str], bool] = bool,
        *,
        forked: bool = True,
    ) -> None:
        """Prepare the process. `ready` gets its log since its start, and returns whether the process is up; `forked`:
        see tests/support/warm.py.
        """
        self.name = name
        self.log = folder / f"{name}.log"
        self.deaths: list[Death] = []
        self.wanted = False
        self.busy = asyncio.Lock()
        self._command = list(command)
        self._environ = dict(environ)
        self._clock = clock
        self._ready = ready
        self._popen: warm.Started | None = None
        self._forked = forked
        self._logged = 0

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """Start it, unless it runs."""
        self.wanted = True
        if self.alive:
            return
        self._note_end("by itself")
        with self.log.open("ab") as log:
            self._logged = log.tell()
            start = warm.start if self._forked else warm.start_anew
            self._popen = start(self._command, self._environ, log.fileno(), log.fileno(), new_session=True)
        guard.adopt(self._popen.pid, signal.SIGKILL, _NOTHING)

    async def up(self, limit_s: float = 60.0) -> None:
        """Return once it runs and says so.

        Raises:
            TimeoutError: it did not within `limit_s`; with the end of its log.
        """
        deadline = time.monotonic() + limit_s * PATIENCE
        while not (self.alive and self._ready(self._said())):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} is not up after {limit_s:.0f} s:\n{self.tail()}")
            if not self.alive:
                await asyncio.sleep(RESTART_S)
                self.start()
            await asyncio.sleep(_POLL_S)

    def becomes(self, command: Sequence[str]) -> None:
        """Set the command that the next start runs."""
        self._command = list(command)

    async def kill(self) -> None:
        """Send SIGKILL to its group; return when it has ended."""
        await self._end(signal.SIGKILL, "killed", STOP_LIMIT_S * PATIENCE)

    async def terminate(self) -> Death | None:
        """SIGTERM; SIGKILL to what is left after the limit, so that its code is not 0. None when it had ended before."""
        return await self._end(signal.SIGTERM, "terminated", STOP_LIMIT_S * PATIENCE)

    async def freeze(self, for_s: float) -> None:
        """Send SIGSTOP, and SIGCONT `for_s` seconds later."""
        self._signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(for_s)
        finally:
            self._signal(signal.SIGCONT)

    async def watch(self) -> None:
        """Restart it whenever it ends by itself, except while `busy` is held."""
        while True:
            await asyncio.sleep(0.1)
            if self.wanted and not self.busy.locked() and not self.alive:
                async with self.busy:
                    self._note_end("by itself")
                    await asyncio.sleep(RESTART_S)
                    self.start()

    def tail(self, size: int = 1500) -> str:
        """Return the end of its log."""
        with suppress(FileNotFoundError):
            return self.log.read_text(errors="replace")[-size:]
        return ""

    def _said(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._logged)
            return log.read().decode(errors="replace")

    async def _end(self, how: signal.Signals, cause: str, limit_s: float) -> Death | None:
        self.wanted = False
        if not self.alive:
            self._note_end("by itself")
            return None
        began = time.monotonic()
        self._signal(how)
        while self.alive and time.monotonic() - began < limit_s:
            await asyncio.sleep(_POLL_S)
        took_s = time.monotonic() - began
        self._signal(signal.SIGKILL)
        while self.alive:
            await asyncio.sleep(_POLL_S)
        return self._note_end(cause, took_s)

    def _signal(self, how: signal.Signals) -> None:
        if self._popen is not None and self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, how)

    def _note_end(self, cause: str, took_s: float = 0.0) -> Death | None:
        """Register the end of a process, once."""
        popen, self._popen = self._popen, None
        if popen is None:
            return None
        guard.release(popen.pid)
        self.deaths.append(Death(self.name, self._clock(), popen.wait(), cause, took_s))
        return self.deaths[-1]
