"""A library that floods the log is limited and counted, and hides neither other loggers nor ours."""

import io
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog

from connectors.telemetry.log_throttle import PASSING, PASSING_A_MINUTE, STRETCH_S, LogRateLimit, a_few_a_minute
from connectors.telemetry.logs import configure_logging
from tests.support.eventually import eventually

AWAY = "Unable connect to node with id %s: %s"


@dataclass
class Hand:
    """Delayed calls, which the test triggers."""

    due: list[Callable[[], None]] = field(default_factory=list)

    def later(self, _seconds: float, do: Callable[[], None]) -> None:
        self.due.append(do)

    def pass_time(self) -> None:
        due, self.due = self.due, []
        for do in due:
            do()


def record(text: Any = AWAY, *values: object, at: float = 100.0, name: str = "aiokafka") -> logging.LogRecord:
    created = logging.LogRecord(name, logging.ERROR, __file__, 1, text, values, None)
    created.created = at
    return created


def passed(bound: LogRateLimit, *records: logging.LogRecord) -> list[bool]:
    return [bound.filter(one) for one in records]


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_few_lines_a_second_of_one_template_pass_for_any_values() -> None:
    bound = LogRateLimit(Hand().later)
    result = passed(bound, *(record(AWAY, number, "refused") for number in range(1000)))
    assert sum(result) == PASSING
    assert result[:PASSING] == [True] * PASSING


def test_another_template_and_another_logger_are_not_limited_by_it() -> None:
    bound = LogRateLimit(Hand().later)
    passed(bound, *(record(AWAY, number, "refused") for number in range(50)))
    assert passed(bound, record("Heartbeat failed"), record(AWAY, 1, "refused", name="faust")) == [True, True]


def test_lines_that_consist_only_of_values_are_distinguished_by_their_text() -> None:
    """For example `log.exception("%r", error)`: otherwise the tenth kind of crash would be hidden by the first."""
    bound = LogRateLimit(Hand().later)
    errors = [f"crash of {name}" for name in ("fetcher", "coordinator", "sender", "timer", "table")]
    assert all(passed(bound, *(record("%s", error) for error in errors)))


def test_a_rare_line_always_passes() -> None:
    hand = Hand()
    bound = LogRateLimit(hand.later)
    for second in range(20):
        assert all(passed(bound, *(record(at=100 + second * STRETCH_S) for _ in range(PASSING))))
    assert hand.due == []


def test_our_own_events_are_never_limited() -> None:
    """Each is about one thing that happened: a dead letter, a halted partition task."""
    stream = io.StringIO()
    configure_logging("INFO", "json", stream)
    for number in range(100):
        structlog.get_logger("streams.runtime.partition_task").error("partition_halted", partition=number)
    assert len(lines(stream)) == 100


def test_the_number_of_left_out_lines_is_logged_after_the_second_and_then_lines_pass_again() -> None:
    stream, hand = io.StringIO(), Hand()
    configure_logging("INFO", "json", stream)
    bound = LogRateLimit(hand.later)
    passed(bound, *(record(AWAY, number, "refused") for number in range(1000)))
    hand.pass_time()
    [result] = lines(stream)
    assert (result["event"], result["of"], result["count"]) == ("log_lines_suppressed", "aiokafka", 1000 - PASSING)
    assert result["like"] == AWAY
    assert bound.filter(record(AWAY, 1, "refused"))
    hand.pass_time()
    assert len(lines(stream)) == 1


@pytest.mark.parametrize("apart_s", [0.0, 1.0])
def test_the_memory_is_bounded_for_any_number_of_kinds_of_lines(apart_s: float) -> None:
    bound = LogRateLimit(Hand().later)
    for number in range(2_000):
        word = "".join(chr(97 + int(digit)) for digit in str(number))
        assert bound.filter(record(f"text {word}", at=100.0 + number * apart_s))
    assert len(bound._stretches) <= 500


def test_silent_kinds_are_forgotten_so_that_a_new_flood_is_limited_too() -> None:
    bound = LogRateLimit(Hand().later)
    words = ("".join(chr(97 + int(digit)) for digit in str(number)) for number in range(500))
    passed(bound, *(record(f"text {word}", at=100.0) for word in words))
    assert sum(passed(bound, *(record(at=102.0) for _ in range(50)))) == PASSING


def test_a_flood_in_the_configured_log_is_limited_and_ends_with_its_count() -> None:
    stream = io.StringIO()
    configure_logging("INFO", "json", stream)
    for number in range(500):
        logging.getLogger("asyncpg").error(AWAY, number, "refused")
    assert len(lines(stream)) == PASSING
    result = eventually(lambda: [line for line in lines(stream) if line["event"] == "log_lines_suppressed"])
    assert [line["count"] for line in result] == [500 - PASSING]


def test_while_a_broker_is_unavailable_there_is_no_summary_for_each_second() -> None:
    """The limit for a minute applies before that for a second: otherwise each second would log what it left out."""
    stream = io.StringIO()
    configure_logging("INFO", "json", stream)
    for _ in range(3):
        for number in range(100):
            logging.getLogger("aiokafka").error(AWAY, number, "refused")
        time.sleep(1.05)
    said = [line["event"] for line in lines(stream)]
    assert said.count("log_lines_suppressed") <= 1
    assert len(said) <= PASSING_A_MINUTE + 1


def test_lines_that_a_kafka_library_repeats_for_an_hour_pass_a_few_times_a_minute_and_are_counted() -> None:
    stream, hand = io.StringIO(), Hand()
    configure_logging("INFO", "json", stream)
    bound = a_few_a_minute(hand.later)
    heard = 0
    for second in range(600):
        if second % 60 == 0:
            hand.pass_time()
        heard += sum(
            passed(bound, *(record(AWAY, second, "refused", at=second, name="aiokafka.cluster") for _ in range(2)))
        )
    assert heard == 10 * PASSING_A_MINUTE
    left_out = [line["count"] for line in lines(stream)]
    assert sum(left_out) + heard == 1200 - (120 - PASSING_A_MINUTE), (
        "the lines left out in the last minute are counted when it is over"
    )


def test_no_other_library_has_such_a_low_limit() -> None:
    bound = a_few_a_minute(Hand().later)
    assert all(passed(bound, *(record(at=second, name="asyncpg") for second in range(600))))
    assert all(passed(bound, *(record(at=second, name="aiokafkaesque") for second in range(600))))
