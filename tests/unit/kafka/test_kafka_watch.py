"""Kafka's availability is known without a request for each probe, and does not change after one lost answer."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from connectors.kafka.reachability import EVERY_S, KafkaReachability
from connectors.kafka.startup import TELL_EVERY_S, KafkaWait
from schemas.errors import Unavailable

AWAY = "kafka_unavailable"


class Enough(Exception):
    """Ends the loop."""


@given(st.lists(st.booleans()))
def test_the_state_changes_only_after_two_equal_answers(answers: list[bool]) -> None:
    watch, said = KafkaReachability(), list[bool]()
    for answer in answers:
        before = watch.away_because
        watch.found("" if answer else AWAY)
        said.append(answer)
        if (watch.away_because == "") is not (before == ""):
            assert said[-2:] == [answer, answer] or (len(said) == 1 and answer)
    if answers[-2:] in ([True, True], [False, False]):
        assert watch.away_because == ("" if answers[-1] else AWAY)


def test_a_broker_that_answers_every_second_time_does_not_make_the_process_unready() -> None:
    watch = KafkaReachability()
    for number in range(20):
        watch.found(AWAY if number % 2 else "")
        assert watch.away_because == ""
    watch.found("")
    watch.found(AWAY)
    watch.answered()  # a record was stored meanwhile
    watch.found(AWAY)
    assert watch.away_because == ""
    watch.found(AWAY)
    assert watch.away_because == AWAY
    watch.answered()
    assert watch.away_because == AWAY, "one record makes no broker"


async def test_the_watch_asks_once_a_second_and_logs_once_a_minute() -> None:
    now, asked = 0.0, 0

    async def ask() -> None:
        nonlocal asked
        asked += 1
        if 10 <= now < 200:
            raise Unavailable(AWAY, "_TRANSPORT")

    async def sleep(seconds: float) -> Any:
        nonlocal now
        assert seconds == EVERY_S
        now += seconds
        await asyncio.sleep(0)
        if now > 300:
            raise Enough

    with capture_logs() as said, pytest.raises(Enough):
        await KafkaReachability().work(ask, KafkaWait("broker:9092", lambda: now), sleep)
    assert asked == 301
    lines = [(line["event"], line["address"], line["waited_s"]) for line in said]
    address = "KAFKA_BOOTSTRAP_SERVERS=broker:9092"
    away = [("waiting_for_kafka", address, n * TELL_EVERY_S) for n in range(4)]
    assert lines == [*away, ("kafka_answered", address, 190)]
