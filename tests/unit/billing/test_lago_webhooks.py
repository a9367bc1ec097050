"""Lago's webhooks: whose signature is good, what is done about each type, and what an org's record becomes."""

import asyncio
import hmac
import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import pytest
import structlog

from connectors.billing.lago_webhooks import WebhookHandlers, kind_of, org_of
from connectors.billing.org_sync import OrgSynchroniser, as_lago_says
from connectors.billing.unbillable_events import UnbillableEvents
from connectors.lago.responses import Customer, Plan, Subscription
from connectors.lago.webhook_signatures import check_signature
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.errors import Rejected, Unavailable
from schemas.moments import HOUR_US, SECOND_US, to_iso
from tests.support.virtual_time import run_virtually, virtual_now

NOW = 1_800_000_000_000_000
DAY = 24 * HOUR_US
BODY = rb'{"webhook_type":"customer.updated","name":"A \u0026 B"}'


def signature(secret: str, body: bytes = BODY) -> str:
    return b64encode(hmac.new(secret.encode(), body, sha256).digest()).decode()


def refused(headers: Mapping[str, str], body: bytes = BODY, secrets: Sequence[str] = ("one", "two")) -> str:
    with pytest.raises(Rejected) as told:
        check_signature(headers, body, secrets)
    assert "one" not in str(told.value) and "two" not in str(told.value)
    return told.value.reason


@pytest.mark.parametrize("secret", ["one", "two"])
@pytest.mark.parametrize("algorithm", [{"X-Lago-Signature-Algorithm": "hmac"}, {}])
def test_every_live_secret_signs(secret: str, algorithm: dict[str, str]) -> None:
    """While one is rotated both are good."""
    check_signature({"X-Lago-Signature": f" {signature(secret)}\n", **algorithm}, BODY, ["one", "two"])


def test_a_known_signature_is_the_one_that_lago_makes() -> None:
    """Against a value made elsewhere: `printf '{"a":1}' | openssl dgst -sha256 -hmac key -binary | base64`."""
    check_signature({"X-Lago-Signature": "iKZ/JLvNrtDmyZdAS7eadDuvRMa6svTCcyjjAJ0i40I="}, b'{"a":1}', ["key"])


def test_the_bytes_are_signed_not_what_they_mean() -> None:
    """Lago writes & as an escape: the one who reads and writes the JSON again has another body."""
    headers = {"X-Lago-Signature": signature("one")}
    assert refused(headers, json.dumps(json.loads(BODY), separators=(",", ":")).encode()) == "bad_signature"
    assert refused(headers, BODY + b" ") == "bad_signature"
    check_signature(headers, BODY, ["one"])


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "unsigned"),
        ({"X-Lago-Signature": ""}, "unsigned"),
        ({"X-Lago-Signature": signature("three")}, "bad_signature"),
        ({"X-Lago-Signature": signature("")}, "bad_signature"),
        ({"X-Lago-Signature": hmac.new(b"one", BODY, sha256).hexdigest()}, "bad_signature"),
        ({"X-Lago-Signature": "ü\udcff"}, "bad_signature"),
        ({"X-Lago-Signature": "e30.e30.e30", "X-Lago-Signature-Algorithm": "jwt"}, "signed_by_jwt"),
        ({"X-Lago-Signature": signature("one"), "X-Lago-Signature-Algorithm": "JWT"}, "signed_by_jwt"),
    ],
)
def test_nothing_else_is_good(headers: dict[str, str], reason: str) -> None:
    assert refused(headers) == reason


def test_without_a_secret_no_one_signs() -> None:
    assert refused({"X-Lago-Signature": signature("")}, secrets=()) == "bad_signature"


class Office:
    """The handlers' neighbours: orgs that are ours, and what was asked of them."""

    def __init__(self, *ours: str, down: bool = False) -> None:
        self.ours = set(ours)
        self.down = down
        self.refreshed: list[str] = []
        self.refused: list[Mapping[str, list[str]]] = []
        self.handlers = WebhookHandlers(self, self)

    async def refresh(self, org_id: str) -> bool:
        if self.down:
            raise Unavailable("http_503")
        self.refreshed.append(org_id)
        return org_id in self.ours

    async def unbillable(self, found: Mapping[str, list[str]]) -> int:
        self.refused.append(found)
        return sum(map(len, found.values()))

    def take(self, kind: str, object_type: str, found: Any, **more: Any) -> str:
        payload = {"webhook_type": kind, "object_type": object_type, object_type: found, **more}
        return run_virtually(self.handlers.handle(payload))


@pytest.mark.parametrize(
    "kind",
    [
        *("subscription.started", "subscription.terminated", "subscription.updated", "subscription.canceled"),
        *("subscription.trial_ended", "customer.created", "customer.updated"),
    ],
)
def test_what_touches_an_org_brings_its_record_up_to_date(kind: str) -> None:
    office = Office("org_1")
    object_type = kind.partition(".")[0]
    found = {"external_id": "org_1"} if object_type == "customer" else {"external_customer_id": "org_1"}
    assert office.take(kind, object_type, found) == "applied"
    assert office.refreshed == ["org_1"]


def test_a_webhook_about_somebody_else_changes_nothing() -> None:
    """One Lago may bill other products too."""
    office = Office("org_1")
    assert office.take("subscription.started", "subscription", {"external_customer_id": "them"}) == "ignored"
    assert office.take("subscription.started", "subscription", {}) == "ignored"
    assert office.take("subscription.started", "subscription", None) == "ignored"


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        *(
            ("invoice.created", "noted"),
            ("invoice.payment_failure", "noted"),
            ("wallet.depleted_ongoing_balance", "noted"),
        ),
        *(("wallet_transaction.created", "noted"), ("customer.checkout_url_generated", "noted")),
        *(("payment.succeeded", "noted"), ("dunning_campaign.finished", "unknown"), ("", "unknown")),
    ],
)
def test_what_is_lagos_own_is_told_and_nothing_is_done(kind: str, outcome: str) -> None:
    office = Office("org_1")
    with structlog.testing.capture_logs() as lines:
        assert office.take(kind, "thing", {"external_customer_id": "org_1"}) == outcome
    assert [(line["event"], line["type"]) for line in lines] == [(f"lago_webhook_{outcome}", kind)]
    assert office.refreshed == office.refused == []


def test_while_lago_cannot_be_asked_the_webhook_is_not_taken() -> None:
    with pytest.raises(Unavailable):
        Office("org_1", down=True).take("subscription.started", "subscription", {"external_customer_id": "org_1"})


def test_the_handler_takes_the_payload_as_it_is_documented() -> None:
    """`{"customer": {"external_id": ...}}`, and as Lago nests it."""
    office = Office("org_1")
    for payload in (
        {"customer": {"external_id": "org_1"}},
        {"object_type": "subscription", "subscription": {"customer": {"external_id": "org_1"}}},
    ):
        assert run_virtually(office.handlers.handle_subscription_created(payload)) == "applied"
    assert office.refreshed == ["org_1", "org_1"]


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("handle_subscription_created", "applied"),
        ("handle_subscription_started", "applied"),
        ("handle_subscription_terminated", "applied"),
        ("handle_subscription_updated", "applied"),
        ("handle_customer_created", "applied"),
        ("handle_customer_updated", "applied"),
        ("handle_customer_event", "noted"),
        ("handle_invoice_event", "noted"),
        ("handle_wallet_event", "noted"),
        ("handle_events_errors", "ignored"),
    ],
)
def test_each_handler_may_be_called_by_its_name(name: str, outcome: str) -> None:
    office = Office("org_1")
    payload = {"object_type": "subscription", "subscription": {"external_customer_id": "org_1"}}
    assert run_virtually(getattr(office.handlers, name)(payload)) == outcome
    assert office.refreshed == ["org_1"] * (outcome == "applied")


@pytest.mark.parametrize(
    "payload", [{}, {"object_type": []}, {"object_type": "x", "x": [1]}, {"customer": {"external_id": 7}}]
)
def test_an_envelope_of_any_shape_names_no_one(payload: dict[str, Any]) -> None:
    assert (org_of(payload), kind_of(payload)) == ("", "")


def test_events_that_lago_will_not_bill_are_handed_on_by_reason() -> None:
    office = Office()
    found = {"invalid_code": ["a", "b", 3], "missing_group_key": None, "odd": "x", "invalid_filter_values": ["c"]}
    assert office.take("events.errors", "events_errors", found) == "applied"
    assert office.refused == [{"invalid_code": ["a", "b"], "invalid_filter_values": ["c"]}]
    assert office.take("events.errors", "events_errors", None) == "ignored"


class Topic:
    """Receipts that were written, and states that are known."""

    def __init__(self, **states: str) -> None:
        self.states = states
        self.records: list[tuple[str, str, dict[str, Any]]] = []
        self.told: list[tuple[str, int]] = []

    def state(self, transaction_id: str) -> str | None:
        return self.states.get(transaction_id)

    async def send_all(self, records: Sequence[Any]) -> dict[int, Rejected]:
        for topic, key, value, _ in records:
            self.records.append((topic, key, json.loads(value)))
            self.states[key] = json.loads(value)["status"]
        return {}


def test_an_event_of_ours_that_lago_will_not_bill_fails_once_and_others_are_left_alone() -> None:
    topic = Topic(a="completed", b="failed", c="processing")
    late = UnbillableEvents(topic, topic, "receipts", lambda *told: topic.told.append(told), lambda: NOW)
    found = {"invalid_code": ["a", "a", "b", "foreign"], "surprise": ["c"]}
    assert run_virtually(late.unbillable(found)) == 2
    assert run_virtually(late.unbillable(found)) == 0
    assert [(key, value["status"], value["reason"]) for _, key, value in topic.records] == [
        ("a", "failed", "unbillable_invalid_code"),
        ("c", "failed", "unbillable_other"),
    ]
    assert topic.told == [("unbillable_invalid_code", 1), ("unbillable_other", 1)]


def test_an_orgs_record_becomes_what_lago_says() -> None:
    """
    old plan   [---------)
    new plan             [------>      the change of plan was not seen here: one still runs in the record
    """
    old, new = Period("sub", NOW - 9 * DAY, NOW - DAY, "starter"), Period("sub", NOW - DAY, None, "professional")
    org = OrgRecord("org", "Acme", "starter", "USD", periods=(Period("sub", NOW - 9 * DAY, None, "starter"),))
    lagos = Customer("org", name="Acme & Co", currency="EUR", email="a@example.com")
    changed = as_lago_says(org, lagos, [new, old], NOW)
    assert changed.periods == (old, new)
    assert (changed.name, changed.plan, changed.currency, changed.email) == (
        *("Acme & Co", "professional", "EUR"),
        "a@example.com",
    )
    assert as_lago_says(changed, lagos, [old, new], NOW + DAY) is changed
    assert as_lago_says(changed, None, [old, new], NOW + DAY) is changed


def test_a_period_ends_where_the_next_begins_though_lago_tells_only_the_second() -> None:
    """
    Lago reports   [ 0.052 ........ 7.000 )        a call at 7.1 is the old plan's
                                  [ 7.242 ....>
    it is        [ 0.052 .......... 7.242 )[ 7.242 ....>
    """
    first = Period("sub", NOW + 52_000, NOW + 7 * SECOND_US, "starter")
    second = Period("sub", NOW + 7_242_000, None, "dear")
    other = Period("another", NOW + 7_100_000)
    org = as_lago_says(OrgRecord("org"), None, [second, other, first], NOW + 9 * SECOND_US)
    assert [(period.plan_code, period.terminated_at) for period in org.periods] == [
        ("starter", NOW + 7_242_000),
        ("", None),
        ("dear", None),
    ]
    short = Period("sub", NOW + 52_000, NOW, "starter")  # begun and ended within one second
    assert as_lago_says(OrgRecord("org"), None, [short], NOW + DAY).periods[0].terminated_at == NOW + 52_000


def test_what_lago_does_not_have_any_more_has_ended() -> None:
    org = OrgRecord("org", periods=(Period("sub", NOW - DAY), Period("later", NOW + DAY)))
    assert as_lago_says(org, None, [], NOW).periods == (Period("sub", NOW - DAY, NOW), Period("later", NOW + DAY))
    assert as_lago_says(OrgRecord("new"), None, [], NOW) == OrgRecord("new")


def test_what_ended_long_ago_stays_out_unless_it_is_known() -> None:
    ancient = Period("old", NOW - 400 * DAY, NOW - 300 * DAY)
    known = OrgRecord("org", periods=(Period("old", NOW - 400 * DAY, NOW - 299 * DAY),))
    assert as_lago_says(OrgRecord("org"), None, [ancient], NOW).periods == ()
    assert as_lago_says(known, None, [ancient], NOW).periods == (ancient,)


class World:
    """A Lago with subscriptions, and the two tables."""

    def __init__(self) -> None:
        self.running: dict[str, list[Subscription]] = {}
        self.orgs: dict[str, OrgRecord] = {}
        self.asked: list[str] = []
        self.slow_s = 0.0
        mapped = MappingVersion(0, "mapped", "t")
        customers = {"c": CustomerRecord("c", (mapped,), 0, 0)}
        self.truth = OrgSynchroniser(customers, self.orgs, self, self, now_us=lambda: NOW, sleep=self.sleep)
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if seconds > 100:
            raise KeyboardInterrupt

    async def subscriptions(
        self, external_customer_id: str = "", statuses: Sequence[str] = (), plan_code: str = ""
    ) -> list[Subscription]:
        await asyncio.sleep(self.slow_s)
        self.asked.append(external_customer_id)
        everyone = [one for many in self.running.values() for one in many]
        return self.running.get(external_customer_id, []) if external_customer_id else everyone

    async def customer(self, external_id: str) -> Customer | None:
        return None

    async def plan(self, code: str) -> Plan | None:
        return None

    async def plans(self) -> list[Plan]:
        return []

    async def change(self, org_id: str, make: Callable[[OrgRecord], OrgRecord]) -> OrgRecord:
        self.orgs[org_id] = make(self.orgs.get(org_id) or OrgRecord(org_id))
        return self.orgs[org_id]

    def run(self, org_id: str, since: int = NOW - DAY, plan: str = "starter") -> None:
        one = Subscription("sub", to_iso(since), plan, external_customer_id=org_id, status="active")
        self.running[org_id] = [one]


def test_only_orgs_that_are_known_or_mapped_are_brought_up_to_date() -> None:
    world = World()
    world.run("mapped")
    world.run("stranger")
    assert run_virtually(world.truth.refresh("mapped"))
    assert not run_virtually(world.truth.refresh("stranger"))
    assert list(world.orgs) == ["mapped"] and world.asked == ["mapped"]


def test_lago_that_is_slow_is_not_waited_for_longer_than_the_sender_waits() -> None:
    world = World()
    world.slow_s = 60

    async def slow() -> float:
        with pytest.raises(Unavailable, match="timeout"):
            await world.truth.refresh("mapped")
        return virtual_now()

    assert run_virtually(slow()) < 30


def test_a_poll_asks_once_for_all_and_again_only_for_orgs_that_differ() -> None:
    world = World()
    for number in range(40):
        world.run(f"org_{number}")
        world.orgs[f"org_{number}"] = OrgRecord(
            f"org_{number}", plan="starter", periods=(Period("sub", NOW - DAY, None, "starter"),)
        )
    world.run("org_7", since=NOW - SECOND_US)
    world.run("org_9", plan="professional")
    del world.running["org_11"]
    assert run_virtually(world.truth.poll()) == 3
    assert world.asked == ["", "org_11", "org_7", "org_9"]
    assert world.orgs["org_11"].periods[0].terminated_at == NOW
    assert world.orgs["org_9"].plan == "professional"
    assert run_virtually(world.truth.poll()) == 0 and world.asked[4:] == [""]


def test_a_poll_is_bounded_and_paced() -> None:
    world = World()
    for number in range(1200):
        world.orgs[f"org_{number}"] = OrgRecord(f"org_{number}", periods=(Period("sub", NOW - DAY),))
    assert [run_virtually(world.truth.poll()) for _ in range(4)] == [500, 500, 200, 0]
    assert len(world.pauses) == 1198 and set(world.pauses) == {0.1}


def test_the_first_poll_comes_a_minute_after_the_start_and_then_every_quarter_of_an_hour() -> None:
    world = World()
    with pytest.raises(KeyboardInterrupt):
        run_virtually(world.truth.poll_every(900))
    assert world.pauses == [60, 900] and world.asked == [""]
