"""Limits repeated log lines of libraries: a few per second, and for Kafka's clients a few per minute. All other lines
are counted.

A Kafka client that has lost its broker logs hundreds of lines per second.
Our own events are never limited, because each is about something different.
"""

import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

log = structlog.get_logger(__name__)

#: How many lines of one kind are written within `STRETCH_S` seconds.
PASSING: Final = 3
STRETCH_S: Final = 1.0
#: Kafka's clients repeat lines for as long as Kafka does not answer, so their limit is per minute.
KAFKA_LIBRARIES: Final = ("aiokafka", "faust", "kafka", "librdkafka", "mode")
PASSING_A_MINUTE: Final = 5
MINUTE_S: Final = 60.0
#: How many kinds of lines are remembered; without a template, every different text is a new kind.
_MOST_KINDS: Final = 500
_KIND_LENGTH: Final = 120

#: A line of librdkafka: facility, client, thread, text. The library repeats the lines of a failing connection twenty
#: times per second.
_LIBRDKAFKA = re.compile(r"[A-Z_]+ \[[^]]*#(producer|consumer)-\d+\] ")
_REPEATED_AFTER_S: Final = 30.0
_WORD = re.compile(r"[A-Za-z]{3}")
_DIGITS = re.compile(r"\d+")

Later = Callable[[float, Callable[[], None]], None]


class OncePerWhile(logging.Filter):
    """Lets a line of librdkafka pass once in 30 s, whichever client logs it. Other lines pass."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.getMessage() if isinstance(record.msg, str) else ""
        if (beginning := _LIBRDKAFKA.match(line)) is None:
            return True
        text = _DIGITS.sub("", line[beginning.end() :])
        if record.created - self._said.get(text, float("-inf")) < _REPEATED_AFTER_S:
            return False
        if len(self._said) > 100:
            self._said.clear()
        self._said[text] = record.created
        return True


@dataclass(slots=True)
class _Stretch:
    """The lines of one kind since `began`, in seconds since 1970 UTC."""

    began: float
    said: int = 0


class LogRateLimit(logging.Filter):
    """Lets three lines per second pass of each logger and template; after that second it logs how many were suppressed.

    Args:
        later: `later(seconds, do)` calls `do` once, in any thread.
        passing, stretch_s: the number of lines and the seconds of the limit; by default three and one.
        of: limit only these loggers and their children; empty = all.
    """

    def __init__(
        self,
        later: Later | None = None,
        passing: int = PASSING,
        stretch_s: float = STRETCH_S,
        of: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._later = later or _in_a_thread
        self._passing = passing
        self._stretch_s = stretch_s
        self._of = frozenset(of)
        self._stretches: dict[tuple[str, str], _Stretch] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        if not isinstance(record.msg, str):
            return True  # an event of structlog, so it is one of our events
        if self._of and record.name.partition(".")[0] not in self._of:
            return True
        kind = (record.name, _DIGITS.sub("", _template(record)[:_KIND_LENGTH]))
        with self._lock:
            stretch = self._stretches.get(kind)
            if stretch is None or record.created - stretch.began >= self._stretch_s:
                if stretch is None and not self._has_room(record.created):
                    return True
                # Keep a stretch whose count will be logged: the call that logs it also removes it.
                if stretch is None or stretch.said <= self._passing:
                    stretch = self._stretches[kind] = _Stretch(record.created)
            stretch.said += 1
            if stretch.said == self._passing + 1:
                self._later(self._stretch_s, lambda: self._log_suppressed(kind))
            return stretch.said <= self._passing

    def _log_suppressed(self, kind: tuple[str, str]) -> None:
        with self._lock:
            stretch = self._stretches.pop(kind, None)
        if stretch is not None:
            log.warning("log_lines_suppressed", of=kind[0], like=kind[1], count=stretch.said - self._passing)

    def _has_room(self, now: float) -> bool:
        """Return whether one more kind can be remembered; forgets kinds without recent lines first."""
        if len(self._stretches) >= _MOST_KINDS:
            for kind, stretch in list(self._stretches.items()):
                if stretch.said <= self._passing and now - stretch.began >= self._stretch_s:
                    del self._stretches[kind]
        return len(self._stretches) < _MOST_KINDS


def _template(record: logging.LogRecord) -> str:
    """Return the common part of lines of one kind. A template without words, such as `%s: %r`, is replaced by the whole
    text.
    """
    return record.msg if _WORD.search(record.msg) else record.getMessage()


def _in_a_thread(seconds: float, do: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, do)
    timer.daemon = True
    timer.start()


def a_few_a_minute(later: Later | None = None) -> LogRateLimit:
    """Return the limit of Kafka's clients, which repeat lines for hours while Kafka does not answer."""
    return LogRateLimit(later, PASSING_A_MINUTE, MINUTE_S, KAFKA_LIBRARIES)
