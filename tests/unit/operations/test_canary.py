"""The canary at work, with an ingress and a Lago controlled by the test, and the test's own clock."""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from connectors.ingest.sender_signatures import Secret, signed_by
from connectors.lago.errors import LagoUnavailable
from connectors.lago.responses import Subscription
from connectors.operations import canary as module
from connectors.operations.canary import Canary, Place, sentence_of
from connectors.operations.canary_post import FIELDS, Credential, body_of
from connectors.processes.canary import LastBilled
from connectors.telemetry.metrics import Metrics
from schemas.errors import Rejected
from schemas.moments import SECOND_US
from schemas.records import LagoEvent
from schemas.wire import SLP, Call
from streams.core.delivery.canary import (
    BILLED,
    BILLED_TWICE,
    NOT_BILLED,
    NOT_POSTED,
    NOT_SEEN,
    RESULTS,
    WRONG_AMOUNT,
    CanaryCall,
    Outcome,
)
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS, customer_of, shape_of
from tests.unit.streams.core.delivery.test_canary import MINUTE, NOON, PLAN, event


@dataclass
class World:
    """A clock, an ingress and a Lago. `events_of`: what Lago has of a call."""

    now_us: int = NOON + SECOND_US
    posts: list[CanaryCall] = field(default_factory=list)
    refusal: str = ""
    away: bool = False
    asked: int = 0
    subscribed: str = "sub"
    events_of: Callable[[CanaryCall], list[LagoEvent]] = lambda call: [event(call)]

    async def post(self, call: CanaryCall, now_us: int) -> str:
        self.posts.append(call)
        return self.refusal

    async def subscriptions(self, external_customer_id: str = "") -> list[Subscription]:
        return [Subscription(self.subscribed)] if self.subscribed and external_customer_id == "org" else []

    async def events_between(
        self, external_subscription_id: str, code: str, from_us: int, until_us: int, most: int
    ) -> list[LagoEvent]:
        self.asked += 1
        if self.away:
            raise LagoUnavailable("connect")
        assert (external_subscription_id, code) == (self.subscribed, "ai_usage")
        sealed = [call for call in self.posts if call.closes_us <= self.now_us and from_us <= call.ended_us < until_us]
        return [found for call in sealed for found in self.events_of(call)]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def reports() -> list[Outcome]:
    return []


@pytest.fixture
async def canary(world: World, reports: list[Outcome]) -> Canary:
    one = Canary(PLAN, world, world, Place("org", "ai_usage"), lambda: world.now_us, on_outcome=reports.append)
    await one.find_subscription()
    return one


async def minutes(canary: Canary, world: World, count: float) -> None:
    """The canary's ticks of this number of minutes."""
    for _ in range(round(count * 60)):
        await canary.tick()
        world.now_us += SECOND_US


async def test_one_call_a_minute_is_posted_and_found_with_one_request_each(
    canary: Canary, world: World, reports: list[Outcome]
) -> None:
    await minutes(canary, world, 12)
    assert [call.ended_us for call in world.posts] == [NOON + number * MINUTE for number in range(1, 13)]
    assert {outcome.result for outcome in reports} == {BILLED}
    assert len(reports) == world.asked == 10
    assert all(65 * SECOND_US <= outcome.wait_us < 70 * SECOND_US for outcome in reports)


async def test_an_event_that_lago_accepted_and_lost_is_reported_when_it_is_due(
    canary: Canary, world: World, reports: list[Outcome]
) -> None:
    world.events_of = lambda _: []
    await minutes(canary, world, 5)
    assert [outcome.result for outcome in reports] == [NOT_BILLED]
    assert reports[0].call == world.posts[0]


async def test_an_ingress_that_refuses_the_call_is_reported_at_once(
    canary: Canary, world: World, reports: list[Outcome]
) -> None:
    world.refusal = "http://ingress answered 503"
    await minutes(canary, world, 1.5)
    assert [outcome.result for outcome in reports] == [NOT_POSTED]
    assert world.asked == 0
    assert sentence_of(reports[0], "sub", canary.refusal).endswith("was not posted: http://ingress answered 503.")


async def test_while_lago_is_unavailable_it_is_asked_less_and_less_often_and_no_call_is_reported_as_not_billed(
    canary: Canary, world: World, reports: list[Outcome]
) -> None:
    world.away = True
    await minutes(canary, world, 7)
    assert {outcome.result for outcome in reports} == {NOT_SEEN}
    assert world.asked < 12
    world.away = False
    await minutes(canary, world, 3)
    assert reports[-1].result == BILLED and not reports[-1].late


async def test_a_subscription_that_was_created_again_is_found_after_a_call_was_missing(
    canary: Canary, world: World, reports: list[Outcome]
) -> None:
    world.events_of = lambda _: []
    await minutes(canary, world, 3.5)
    world.events_of = lambda call: [event(call)]
    canary.subscription = "ended"
    world.events_of = lambda _: []

    async def events_between(subscription: str, *_: object) -> list[LagoEvent]:
        return [event(call) for call in world.posts if subscription == "sub"]

    world.events_between = events_between  # type: ignore[assignment,method-assign]
    await minutes(canary, world, 5)
    assert NOT_BILLED in {outcome.result for outcome in reports}
    assert canary.subscription == "sub"
    assert reports[-1].result == BILLED


async def test_a_late_call_shows_the_end_of_a_long_outage_and_calls_go_on(
    canary: Canary, world: World, reports: list[Outcome]
) -> None:
    world.events_of = lambda _: []
    await minutes(canary, world, 34)
    assert len(world.posts) < 17
    world.events_of = lambda call: [event(call)]
    asked = world.asked
    await minutes(canary, world, 1.1)
    assert reports[-1].late and reports[-1].result == BILLED
    assert world.asked - asked <= 2
    await minutes(canary, world, 2.5)
    assert reports[-1].result == BILLED and not reports[-1].late
    assert reports[-1].wait_us < 70 * SECOND_US


@pytest.mark.parametrize(("count", "result"), [(True, BILLED_TWICE), (False, BILLED)])
async def test_a_copy_of_an_event_is_reported_if_this_lago_bills_copies(
    world: World, reports: list[Outcome], count: bool, result: str
) -> None:
    world.events_of = lambda call: [event(call), event(call)]
    one = Canary(PLAN, world, world, Place("org", "ai_usage", count), lambda: world.now_us, on_outcome=reports.append)
    await one.find_subscription()
    await minutes(one, world, 2.5)
    assert reports[0].result == result


async def test_without_a_subscription_the_canary_names_the_command_to_run(world: World) -> None:
    world.subscribed = ""
    one = Canary(PLAN, world, world, Place("org", "ai_usage"), lambda: world.now_us)
    with pytest.raises(Rejected, match="meterbridge canary setup") as caught:
        await one.find_subscription()
    assert caught.value.reason == "no_canary"


@pytest.mark.parametrize("lost", [False, True])
async def test_a_single_call_by_command_waits_until_it_is_billed_or_due(
    canary: Canary, world: World, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sleep(seconds: float) -> None:
        world.now_us += round(seconds * SECOND_US)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    world.events_of = lambda call: [] if lost else [event(call, window_start="2000-01-01T00:00:00Z")]
    outcome = await canary.once("ab12")
    assert (outcome.result, outcome.call.id) == (NOT_BILLED if lost else BILLED, "eu-canary-ab12")
    assert len(world.posts) == 1
    assert world.now_us <= outcome.call.due_us + 2 * SECOND_US


def test_every_result_has_a_sentence_that_names_the_call() -> None:
    call = PLAN.call(NOON)
    for result in RESULTS:
        assert sentence_of(Outcome(call, result), "sub", "why").startswith(
            ("The call eu-canary-", "It is not known whether")
        )


@pytest.mark.parametrize("party", CUSTOMER_ID_FIELDS)
def test_the_body_has_litellms_shape_and_names_the_customer_in_the_configured_field(party: str) -> None:
    call = PLAN.call(NOON, "ab12")
    body = body_of(call, "eu-canary", party, Decimal("0.0001"))
    assert b'"response_cost":0.0001,' in body
    read = msgspec.json.decode(body[1:-1], type=Call)
    assert shape_of(read, SLP) == SLP
    assert customer_of(SLP, read, (party,)) == ("eu-canary", party)
    assert FIELDS.keys() == set(CUSTOMER_ID_FIELDS)


def test_without_a_token_the_canary_signs_its_calls() -> None:
    body = b"[{}]"
    assert Credential("token", "secret").headers(body, 7) == {"Authorization": "Bearer token"}
    signed = signed_by(Credential(secret="whsec_c2VjcmV0").headers(body, 7), body, [Secret.of("whsec_c2VjcmV0")])
    assert signed is not None and (signed.place, signed.at_s) == (0, 7)
    assert Credential().headers(body, 7) == {}
    assert "secret" not in repr(Credential("secret", "secret"))


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_the_metrics_show_the_last_result_and_count_each_call_once() -> None:
    metrics, clock = Metrics(CollectorRegistry(), "0"), [100.0]
    last = LastBilled(lambda: clock[0])
    metrics.watch_canary(last.age_s)
    call = PLAN.call(NOON)
    metrics.canary_posted.inc()
    for outcome in (Outcome(call, BILLED, 66 * SECOND_US), Outcome(call, NOT_BILLED)):
        last.decided(outcome)
        metrics.canary_decided(outcome)
    clock[0] = 134.0
    late = Outcome(call, BILLED, 200 * SECOND_US, late=True)
    last.decided(late)
    metrics.canary_decided(late)
    assert value(metrics, "meterbridge_canary_failing", reason="not_billed") == 1
    assert value(metrics, "meterbridge_canary_billed_age_seconds") == 100
    assert value(metrics, "meterbridge_canary_posted_total") == 1
    assert value(metrics, "meterbridge_canary_calls_total", result="billed") == 1
    assert value(metrics, "meterbridge_canary_calls_total", result="not_billed") == 1
    assert value(metrics, "meterbridge_canary_billed_seconds_count") == 2
    metrics.canary_decided(Outcome(call, BILLED, 66 * SECOND_US))
    metrics.canary_decided(Outcome(call, NOT_BILLED, overtaken=True))
    assert value(metrics, "meterbridge_canary_failing", reason="not_billed") == 0, "a later call is billed"
    metrics.canary_decided(Outcome(call, WRONG_AMOUNT, SECOND_US))
    assert value(metrics, "meterbridge_canary_failing", reason="not_billed") == 0
    assert value(metrics, "meterbridge_canary_failing", reason="wrong_amount") == 1
