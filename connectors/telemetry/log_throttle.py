"""Libraries that say the same thing for ever: heard a few times a second, Kafka's a few times a minute, the rest counted.

A Kafka client that has lost its broker logs hundreds of lines a second, from every task that met it.
Our own events always pass: each of them is about one thing that happened.
"""

import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

log = structlog.get_logger(__name__)

#: Lines of one kind that pass in a stretch of this many seconds.
PASSING: Final = 3
STRETCH_S: Final = 1.0
#: Libraries that speak to Kafka repeat themselves for as long as it is away: of one kind so many lines pass in a minute.
KAFKA_LIBRARIES: Final = ("aiokafka", "faust", "kafka", "librdkafka", "mode")
PASSING_A_MINUTE: Final = 5
MINUTE_S: Final = 60.0
#: Kinds of lines known at a time; a message without a template makes one of every text.
_MOST_KINDS: Final = 500
_KIND_LENGTH: Final = 120

#: librdkafka's lines: facility, client, thread, text. It repeats a failing connection's twenty times a second.
_LIBRDKAFKA = re.compile(r"[A-Z_]+ \[[^]]*#(producer|consumer)-\d+\] ")
_REPEATED_AFTER_S: Final = 30.0
_WORD = re.compile(r"[A-Za-z]{3}")
_DIGITS = re.compile(r"\d+")

Later = Callable[[float, Callable[[], None]], None]


class OncePerWhile(logging.Filter):
    """A line of librdkafka passes once in 30 s, whichever client says it; every other line passes."""

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
    """What was said of one kind since `began`, seconds since 1970."""

    began: float
    said: int = 0


class LogRateLimit(logging.Filter):
    """Of one logger's lines with one template three a second pass; how many did not is logged when the second is over.

    Args:
        later: `later(seconds, do)` calls `do` once, from any thread.
        passing, stretch_s: other bounds than three, and a second.
        of: only of these loggers and those below them.
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
            return True  # structlog's: one of ours
        if self._of and record.name.partition(".")[0] not in self._of:
            return True
        kind = (record.name, _DIGITS.sub("", _template(record)[:_KIND_LENGTH]))
        with self._lock:
            stretch = self._stretches.get(kind)
            if stretch is None or record.created - stretch.began >= self._stretch_s:
                if stretch is None and not self._has_room(record.created):
                    return True
                # One that is still to be told keeps its place: its teller takes it away.
                if stretch is None or stretch.said <= self._passing:
                    stretch = self._stretches[kind] = _Stretch(record.created)
            stretch.said += 1
            if stretch.said == self._passing + 1:
                self._later(self._stretch_s, lambda: self._tell(kind))
            return stretch.said <= self._passing

    def _tell(self, kind: tuple[str, str]) -> None:
        with self._lock:
            stretch = self._stretches.pop(kind, None)
        if stretch is not None:
            log.warning("log_lines_suppressed", of=kind[0], like=kind[1], count=stretch.said - self._passing)

    def _has_room(self, now: float) -> bool:
        """Whether one more kind can be remembered, once those are forgotten that were silent of late."""
        if len(self._stretches) >= _MOST_KINDS:
            for kind, stretch in list(self._stretches.items()):
                if stretch.said <= self._passing and now - stretch.began >= self._stretch_s:
                    del self._stretches[kind]
        return len(self._stretches) < _MOST_KINDS


def _template(record: logging.LogRecord) -> str:
    """What a line has in common with its like: one that is all values, such as `%s: %r`, has nothing but its text."""
    return record.msg if _WORD.search(record.msg) else record.getMessage()


def _in_a_thread(seconds: float, do: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, do)
    timer.daemon = True
    timer.start()


def a_few_a_minute(later: Later | None = None) -> LogRateLimit:
    """For what goes on for hours: a broker that is away."""
    return LogRateLimit(later, PASSING_A_MINUTE, MINUTE_S, KAFKA_LIBRARIES)
