"""`meterbridge recover` refuses what would bill calls twice, and an interrupted run can be repeated."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

import msgspec
import pytest
from aiokafka.errors import KafkaConnectionError
from confluent_kafka import Producer

from connectors.lago.client import LagoClient
from connectors.lago.errors import LagoUnavailable
from connectors.lago.events import MOVED
from connectors.lago.responses import StoredEvent
from connectors.operations.ledger_rebuild import rebuild
from connectors.operations.ledger_totals import positions_of
from connectors.operations.recovery import Choices, Recovery, recover
from connectors.operations.recovery_at_lago import only_at_lago
from connectors.postgres.recover import latest_part
from schemas.errors import Rejected
from schemas.ledger import POSITION_KEY, Position
from schemas.policy import MeterPolicy
from schemas.records import LagoEvent
from streams.core.metering.normalise import FUTURE_US
from streams.core.metering.reconciliation import LagoUsage
from streams.runtime import clock
from streams.runtime.transactions import TransactionalWriter
from tests.support.database import rows
from tests.support.eventually import PATIENCE, soon
from tests.support.history import TOPICS
from tests.support.projection import Writer, usage
from tests.support.stage import Stage

_FILLED = "INSERT INTO projector_offsets (topic, partition, topic_id, next) VALUES ($1, 0, 'lost', 7)"
_EVENT = """
INSERT INTO usage_parts (part, event, status, raw_partition, first_offset, sealed_at) VALUES ($1, '{}', 'completed', 0, 1, now())
"""
ORG = {"org_id": "acme", "organization": "", "periods": '[{"external_id": "sub"}]'}


async def recovered(stage: Stage, database: str) -> Recovery:
    return await recover(stage.deployment, database, {}, "a test", do=True)


@pytest.mark.parametrize("at", [4, 6])
async def test_a_ledger_whose_start_was_interrupted_starts_with_the_repeated_run(
    stage: Stage, database: str, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Of three transactions for each of two partitions, this one is refused. Otherwise the meter would start the
    ledger, and would count repeated calls again.
    """
    await rows(database, _FILLED, stage.topics.enriched)
    commits, committing = 0, TransactionalWriter.commit

    async def commit(self: TransactionalWriter, *how: Any) -> Any:
        nonlocal commits
        commits += 1
        if commits == at:
            raise KafkaConnectionError
        return await committing(self, *how)

    with monkeypatch.context() as cut:
        cut.setattr(TransactionalWriter, "commit", commit)
        with pytest.raises(KafkaConnectionError):
            await recovered(stage, database)
    async with stage.running("meter", stage.parts()):
        await soon(lambda: len(stage.sensors.halted) >= 2 - (at - 4) // 2)
    assert {reason for _, _, reason in stage.sensors.halted} == {"ledger_missing"}, (
        "a meter must not begin before the repeat"
    )
    done = await recovered(stage, database)
    assert done.ledgers == 2 - (at - 4) // 2
    positions = positions_of(stage.deployment)
    assert sorted(positions) == [0, 1] and all(one.forgot_us for one in positions.values())
    with pytest.raises(Rejected, match="topics_not_empty"):
        await recovered(stage, database)


async def test_a_ledger_that_a_meter_started_does_not_count_as_recovered(stage: Stage, database: str) -> None:
    await rows(database, _FILLED, stage.topics.enriched)
    producer = Producer({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    producer.produce(stage.topics.changelog, msgspec.msgpack.encode(Position()), POSITION_KEY, partition=1)
    assert producer.flush(30 * PATIENCE) == 0
    with pytest.raises(Rejected, match="topics_not_empty"):
        await recovered(stage, database)


async def test_a_ledger_lost_after_a_recovery_is_rebuilt_without_knowledge_of_the_time_before(
    stage: Stage, database: str
) -> None:
    """The new topics do not show which calls were billed before they were created: a copy of one waits for the usage
    log.
    """
    await rows(database, _FILLED, stage.topics.enriched)
    begun_us = clock.now_us()
    await recovered(stage, database)
    producer = Producer({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    producer.produce(stage.topics.changelog, None, POSITION_KEY, partition=0)
    assert producer.flush(30 * PATIENCE) == 0
    done = await rebuild(stage.deployment, 0, "lost again", accept_gaps=False)
    assert done.state == "ledger_missing"
    known_us = positions_of(stage.deployment)[1].forgot_us
    assert begun_us + FUTURE_US <= positions_of(stage.deployment)[0].forgot_us <= known_us


async def test_an_empty_database_is_no_copy_of_what_was_lost(stage: Stage, database: str) -> None:
    with pytest.raises(Rejected, match="never filled"):
        await recovered(stage, database)
    assert not positions_of(stage.deployment)


WINDOWS = MeterPolicy()
TOPIC = "AAAAAAAAAAAAAAAAAAAAAA"
OWN = [f"meterbridge-{TOPIC}-0-{n}" for n in range(3)]


class Listing:
    """A Lago with events: of one subscription in its running period, and of the others. The list changes at the first
    readings before its second page is read.
    """

    def __init__(
        self, running: Sequence[str] = (), others: Sequence[str] = (), moves: int = 0, says: Mapping[str, str] = {}
    ) -> None:
        self.running, self.others, self.moves, self.says = running, others, moves, says

    async def current_usage(self, *_: str) -> LagoUsage:
        return LagoUsage("sub", 0, 1, Decimal(2), 1)

    async def read_events_of(self, subscription: str | None, *how: Any) -> str:
        take: Callable[[StoredEvent], None] = how[-1]
        for name in self.others if subscription is None else self.running:
            take(StoredEvent(name))
            self.moves -= 1
            if self.moves >= 0:
                return MOVED
        return ""

    async def get_event(self, name: str) -> LagoEvent | None:
        if name not in {*self.running, *self.others}:
            return None
        named = {"deployment": self.says[name]} if name in self.says else {}
        return LagoEvent(name, "sub", "ai_usage", "1795176000.000", "1", {"org_id": "acme"} | named)


async def at_lago(database: str, lago: Listing, policy: MeterPolicy = WINDOWS, **how: Any) -> list[str]:
    found = await only_at_lago(database, {"": cast(LagoClient, lago)}, [ORG, *how.pop("orgs", ())], [], policy, **how)
    return [one.transaction_id for one in found]


async def test_a_list_that_changes_between_its_pages_is_read_again(database: str) -> None:
    """Otherwise events on unread pages would be billed again."""
    assert await at_lago(database, Listing(OWN[1:], moves=2)) == OWN[1:]


async def test_without_a_complete_list_nothing_is_recovered(database: str) -> None:
    with pytest.raises(LagoUnavailable, match="changed"):
        await at_lago(database, Listing(OWN, moves=100))


async def test_events_of_a_deployment_with_a_longer_name_are_not_taken_for_ours(database: str) -> None:
    """Otherwise their calls, which our log cannot know, would stay unknown, and nothing from before the loss could be
    sent.
    """
    others = [f"meterbridge-b-{TOPIC}-0-1", f"meterbridge-b-{TOPIC[:-2]}-7-0-1", f"meterbridge2-{TOPIC}-0-1"]
    again = f"{OWN[2]}-again"
    assert await at_lago(database, Listing([*others, OWN[1], again])) == [OWN[1], again]


async def test_in_per_call_mode_an_event_is_named_by_its_calls_identity(database: str) -> None:
    identity = "0" * 32
    assert await at_lago(database, Listing([identity])) == []
    assert await at_lago(database, Listing([identity]), MeterPolicy(window_us=0)) == [identity]


async def test_in_per_call_mode_events_of_another_deployment_are_not_taken_for_ours(database: str) -> None:
    """Earlier they counted as calls that our log does not know, so that nothing from before the loss could be sent."""
    ours, again, theirs, old = "0" * 32, f"{'0' * 32}-again", "1" * 32, "2" * 32
    lago = Listing(
        [ours, again, theirs, old], says={ours: "meterbridge", again: "meterbridge", theirs: "meterbridge-b"}
    )
    assert await at_lago(database, lago, MeterPolicy(window_us=0)) == [ours, again, old]


async def test_a_call_billed_again_as_its_own_event_is_no_sign_of_another_deployment(
    database: str,
) -> None:
    """The newest part must be one of ours, and such an id names no deployment: earlier `recover` refused our own
    tables.
    """
    await rows(database, _EVENT, OWN[0])
    await rows(database, _EVENT, f"{'0' * 32}-again")
    assert await latest_part(database) == OWN[0]


async def test_lago_is_asked_for_all_new_events_for_any_known_orgs_and_periods(database: str) -> None:
    """Of an org that the projector had not seen, of a subscription that ended meanwhile, of the end of the last billing
    period.
    """
    assert await at_lago(database, Listing(others=OWN)) == [], "a database without parts has no moment to ask from"
    await rows(database, "INSERT INTO usage_parts (part, sealed_at) VALUES ('a', now())")
    assert await at_lago(database, Listing(OWN[:1], OWN)) == OWN


CLOSED = {"org_id": "eu::acme", "organization": "eu", "periods": '[{"external_id": "theirs"}]'}


async def test_orgs_of_a_closed_organisation_are_not_asked_for_and_those_of_a_missing_one_are(database: str) -> None:
    assert await at_lago(database, Listing(OWN), orgs=[CLOSED], closed=["eu"]) == OWN
    with pytest.raises(Rejected, match="unknown_organization"):
        await at_lago(database, Listing(OWN), orgs=[CLOSED])


async def test_another_deployments_database_is_refused(stage: Stage, database: str) -> None:
    """Under another name no event would be found in Lago, and everything that only Lago has would be billed again."""
    await rows(database, _FILLED, stage.topics.enriched)
    await rows(database, _EVENT, f"other-{TOPIC}-0-1")
    with pytest.raises(Rejected, match="other_deployment"):
        await recovered(stage, database)
    await rows(database, "UPDATE usage_parts SET part = $1", f"{stage.deployment.name}-{TOPIC}-0-1")
    assert (await recovered(stage, database)).ledgers == 2


async def test_a_rate_card_without_a_line_is_reported_and_a_person_decides(stage: Stage, database: str) -> None:
    """Otherwise the meter would bill LiteLLM's cost for calls that were billed by a card."""
    await rows(database, _FILLED, stage.topics.enriched)
    async with Writer(database) as writer:
        await writer.put(TOPICS.enriched, usage(rate="v7", part="", decision="zero_cost"))
    with pytest.raises(Rejected, match=r"rates_lost.*v7"):
        await recovered(stage, database)
    planned = await recover(stage.deployment, database, {}, "a test", do=False)
    assert list(planned.lost_rates) == ["v7"]
    accepted = Choices(accept_lost_rates=True)
    assert (await recover(stage.deployment, database, {}, "a test", do=True, choices=accepted)).ledgers == 2


async def test_a_call_with_a_clock_that_is_ahead_waits_for_the_log(stage: Stage, database: str) -> None:
    await rows(database, _FILLED, stage.topics.enriched)
    before_us = clock.now_us()
    await recovered(stage, database)
    assert all(one.forgot_us >= before_us + FUTURE_US for one in positions_of(stage.deployment).values())


class Billing(Listing):
    """Lago has an event that bills one call more than the log has, and costs more."""

    async def get_event(self, name: str) -> LagoEvent | None:
        event = await super().get_event(name)
        if event is not None:
            sums = {"requests": "2", "cost_usd": "9", "tokens_input": "0", "tokens_output": "0"}
            event.properties |= {"user_id": "acme", "model": "", "provider": "", **sums}
        return event


@pytest.mark.parametrize("decision", ["billed", "lost"])
async def test_nothing_is_changed_before_a_person_has_decided_about_usage_that_may_be_billed(
    stage: Stage, database: str, decision: str
) -> None:
    await rows(database, _FILLED, stage.topics.enriched)
    own = [f"{stage.deployment.name}-{TOPIC}-0-{n}" for n in range(2)]
    async with Writer(database) as writer:
        await writer.put(
            TOPICS.enriched, usage(0, part=own[0], held="no_mapping"), usage(1, part=own[1], held="no_mapping")
        )
    lagos = {"": cast(LagoClient, Billing(others=own[:1]))}
    with pytest.raises(Rejected, match=rf"undecided_usage.*1 held calls.*{own[0]}"):
        await recover(stage.deployment, database, lagos, "a test", do=True)
    assert not positions_of(stage.deployment)
    assert not await rows(database, "SELECT FROM usage_parts WHERE event IS NOT NULL OR released_in IS NOT NULL")
    done = await recover(stage.deployment, database, lagos, "a test", do=True, choices=Choices(decision))
    assert (done.undecided_calls, done.lost_calls) == (1, int(decision == "lost"))
    [line] = [line for line in stage.values(stage.topics.audit) if line["action"] == "recover"]
    assert line["target"]["undecided"] == decision


async def test_a_lost_call_that_a_rate_card_had_priced_is_not_billed_in_analytics(stage: Stage, database: str) -> None:
    """Its event was never made; earlier its price stayed in the sums of billed usage until a backfill sent it."""
    rated = {
        "rate": "2026-11",
        "billed_usd": Decimal("0.02"),
        "price_usd": Decimal("0.01"),
        "cost_usd": Decimal("0.005"),
    }
    async with Writer(database) as writer:
        await writer.put(TOPICS.enriched, usage(1, **rated), usage(2))
    await rows(database, _FILLED, stage.topics.enriched)
    result = await recover(stage.deployment, database, {}, "a test", do=True, choices=Choices(accept_lost_rates=True))
    assert result.lost_calls == 2
    assert await rows(database, "SELECT decision, billed_usd, provider_cost_usd FROM usage_calls ORDER BY 3") == [
        ("lost", Decimal(0), Decimal("0.000145")),
        ("lost", Decimal(0), Decimal("0.005")),
    ]
