"""Why a process is not ready is said in words, with what to do."""

import re
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request
from prometheus_client import CollectorRegistry

from connectors.http.health import Health
from connectors.http.problem import Problem
from connectors.http.unready import SENTENCES, unready

ROOT = Path(__file__).parents[3]
SOURCES = ("connectors/kafka/producer.py", "connectors/kafka/checked_producer.py", "connectors/processes/server.py")
REASON = re.compile(r'"((?:kafka|topics|coordinator|spool)_[a-z_]+)"')


@pytest.mark.parametrize("reason", sorted(SENTENCES))
async def test_a_process_that_is_not_ready_says_why_in_words(reason: str) -> None:
    health = Health({}, lambda: reason, lambda: 0.0, CollectorRegistry())
    with pytest.raises(Problem) as refused:
        await health.answer_ready(make_mocked_request("GET", "/health/ready"))
    assert (refused.value.status, refused.value.reason) == (503, reason)
    assert refused.value.detail == SENTENCES[reason] != reason


def test_every_reason_of_the_producer_and_the_server_has_its_sentence() -> None:
    reasons = {found for source in SOURCES for found in REASON.findall((ROOT / source).read_text(encoding="utf-8"))}
    assert {"kafka_timeout", "topics_unchecked", "coordinator_awaited"} <= reasons
    assert reasons - SENTENCES.keys() <= {"kafka_producer_failed_for_good"}, reasons - SENTENCES.keys()
    assert "docs/errors.md" in unready("of_a_later_release")
