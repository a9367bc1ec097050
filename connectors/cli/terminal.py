"""Prepares the process of a command: one Ctrl-C ends it, and no character of an id breaks the terminal.

It is imported first, so it imports nothing that takes long.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType

from connectors.telemetry.printable import shown

#: A shell's exit code for an interrupted command.
INTERRUPTED = 130
#: Commands that run until a signal stops them; this is not a failure.
_UNTIL_TOLD = frozenset({"serve", "worker", "lago-sandbox"})
#: Commands with signal handlers of their own, because they have something to finish.
_STOP_THEMSELVES = _UNTIL_TOLD | {"demo"}
#: A progress bar may have hidden the cursor.
_SHOW_CURSOR = "\x1b[?25h"

_words: list[Callable[[], str]] = []
_prepared: list[bool] = []


def prepare(arguments: Sequence[str] | None = None) -> None:
    """Make the process ready for a command; a second call does nothing.

    Args:
        arguments: of the command line, without the program; by default this process's.
    """
    if _prepared:
        return
    _prepared.append(True)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.excepthook = _tell_traceback
    words = sys.argv[1:] if arguments is None else arguments
    command = next((word for word in words if not word.startswith("-")), "")
    if command in _UNTIL_TOLD:
        # Libraries take seconds to load. The first process of a container ignores a signal without a handler.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        # numpy's library for linear algebra, which is not used here, would start a thread for each core.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return  # a background job of a shell: Ctrl-C is not meant for it
    if command in _STOP_THEMSELVES or not hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGINT, lambda *_: _end())  # until the command has a handler of its own
        return
    # Kafka's library waits for a broker in C for up to half a minute. Python handles no signal during that time, so a
    # thread does.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Thread(target=_wait, name="ctrl-c", daemon=True).start()


def when_interrupted(words: Callable[[], str]) -> None:
    """From now on, print `words()` if the command is interrupted, which says how far the command got."""
    _words.append(words)


def _tell_traceback(of: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    """Print the traceback as Python does, with control characters escaped: an error may contain a customer id."""
    if sys.stderr is not None:
        sys.stderr.write(shown("".join(traceback.format_exception(of, error, at)), lines=True))


def _wait() -> None:
    signal.sigwait({signal.SIGINT})
    _end()


def _end() -> None:
    """End the process at once. Everything that the command has reported is durable; a repeat does the rest."""
    sentence = shown(" ".join(["meterbridge: interrupted.", *(words() for words in _words[-1:])]), lines=True)
    cursor = _SHOW_CURSOR if sys.stderr is not None and sys.stderr.isatty() else ""
    try:
        os.write(2, f"{cursor}\n{sentence}\n".encode("ascii", "backslashreplace"))
    finally:
        os._exit(INTERRUPTED)
