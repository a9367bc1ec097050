"""Lago's webhooks: which signatures are valid, what each type causes, and how an org's record changes."""

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
    with pytest.raises(Rejected) as result:
        check_signature(headers, body, secrets)
    assert "one" not in str(result.value) and "two" not in str(result.value)
    return result.value.reason


@pytest.mark.parametrize("secret", ["one", "two"])
@pytest.mark.parametrize("algorithm", [{"X-Lago-Signature-Algorithm": "hmac"}, {}])
def test_a_signature_by_any_configured_secret_is_valid(secret: str, algorithm: dict[str, str]) -> None:
    """While a secret is rotated, the old and the new one are valid."""
    check_signature({"X-Lago-Signature": f" {signature(secret)}\n", **algorithm}, BODY, ["one", "two"])


def test_a_signature_equals_one_that_openssl_makes() -> None:
    """Made by `printf '{"a":1}' | openssl dgst -sha256 -hmac key -binary | base64`."""
    check_signature({"X-Lago-Signature": "iKZ/JLvNrtDmyZdAS7eadDuvRMa6svTCcyjjAJ0i40I="}, b'{"a":1}', ["key"])


def test_the_signature_covers_the_raw_bytes_of_the_body() -> None:
    """Lago writes & as an escape: JSON that is parsed and written again has other bytes."""
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
def test_any_other_signature_is_refused(headers: dict[str, str], reason: str) -> None:
    assert refused(headers) == reason


def test_without_a_secret_every_signature_is_refused() -> None:
    assert refused({"X-Lago-Signature": signature("")}, secrets=()) == "bad_signature"


class HandlerStub:
    """Stands in for what the handlers call: knows our orgs, and records the calls."""

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
def test_a_webhook_about_an_org_refreshes_its_record(kind: str) -> None:
    office = HandlerStub("org_1")
    object_type = kind.partition(".")[0]
    found = {"external_id": "org_1"} if object_type == "customer" else {"external_customer_id": "org_1"}
    assert office.take(kind, object_type, found) == "applied"
    assert office.refreshed == ["org_1"]


def test_a_webhook_about_an_unknown_customer_changes_nothing() -> None:
    """The same Lago may bill other products too."""
    office = HandlerStub("org_1")
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
def test_a_webhook_about_lagos_own_state_is_logged_and_changes_nothing(kind: str, outcome: str) -> None:
    office = HandlerStub("org_1")
    with structlog.testing.capture_logs() as lines:
        assert office.take(kind, "thing", {"external_customer_id": "org_1"}) == outcome
    assert [(line["event"], line["type"]) for line in lines] == [(f"lago_webhook_{outcome}", kind)]
    assert office.refreshed == office.refused == []


def test_a_webhook_is_not_acknowledged_while_lago_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        HandlerStub("org_1", down=True).take("subscription.started", "subscription", {"external_customer_id": "org_1"})


def test_the_handler_reads_the_documented_payload() -> None:
    """`{"customer": {"external_id": ...}}`, and as Lago nests it."""
    office = HandlerStub("org_1")
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
def test_each_handler_can_be_called_by_its_name(name: str, outcome: str) -> None:
    office = HandlerStub("org_1")
    payload = {"object_type": "subscription", "subscription": {"external_customer_id": "org_1"}}
    assert run_virtually(getattr(office.handlers, name)(payload)) == outcome
    assert office.refreshed == ["org_1"] * (outcome == "applied")


@pytest.mark.parametrize(
    "payload", [{}, {"object_type": []}, {"object_type": "x", "x": [1]}, {"customer": {"external_id": 7}}]
)
def test_a_malformed_envelope_names_no_org(payload: dict[str, Any]) -> None:
    assert (org_of(payload), kind_of(payload)) == ("", "")


def test_events_that_lago_will_not_bill_are_passed_on_with_their_reason() -> None:
    office = HandlerStub()
    found = {"invalid_code": ["a", "b", 3], "missing_group_key": None, "odd": "x", "invalid_filter_values": ["c"]}
    assert office.take("events.errors", "events_errors", found) == "applied"
    assert office.refused == [{"invalid_code": ["a", "b"], "invalid_filter_values": ["c"]}]
    assert office.take("events.errors", "events_errors", None) == "ignored"


class Topic:
    """Receipts that were written, and known event states."""

    def __init__(self, **states: str) -> None:
        self.states = states
        self.records: list[tuple[str, str, dict[str, Any]]] = []
        self.reported: list[tuple[str, int]] = []

    def state(self, transaction_id: str) -> str | None:
        return self.states.get(transaction_id)

    async def send_all(self, records: Sequence[Any]) -> dict[int, Rejected]:
        for topic, key, value, _ in records:
            self.records.append((topic, key, json.loads(value)))
            self.states[key] = json.loads(value)["status"]
        return {}


def test_an_own_event_that_lago_will_not_bill_fails_once_and_other_programs_events_are_ignored() -> None:
    topic = Topic(a="completed", b="failed", c="processing")
    late = UnbillableEvents(topic, topic, "receipts", lambda *reported: topic.reported.append(reported), lambda: NOW)
    found = {"invalid_code": ["a", "a", "b", "foreign"], "surprise": ["c"]}
    assert run_virtually(late.unbillable(found)) == 2
    assert run_virtually(late.unbillable(found)) == 0
    assert [(key, value["status"], value["reason"]) for _, key, value in topic.records] == [
        ("a", "failed", "unbillable_invalid_code"),
        ("c", "failed", "unbillable_other"),
    ]
    assert topic.reported == [("unbillable_invalid_code", 1), ("unbillable_other", 1)]


def test_an_orgs_record_is_updated_from_lagos_answer() -> None:
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


def test_a_period_ends_where_the_next_begins_even_if_lago_reports_only_the_second() -> None:
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


def test_a_subscription_that_lago_no_longer_has_is_recorded_as_ended() -> None:
    org = OrgRecord("org", periods=(Period("sub", NOW - DAY), Period("later", NOW + DAY)))
    assert as_lago_says(org, None, [], NOW).periods == (Period("sub", NOW - DAY, NOW), Period("later", NOW + DAY))
    assert as_lago_says(OrgRecord("new"), None, [], NOW) == OrgRecord("new")


def test_an_old_ended_subscription_is_not_added_unless_it_is_known() -> None:
    ancient = Period("old", NOW - 400 * DAY, NOW - 300 * DAY)
    known = OrgRecord("org", periods=(Period("old", NOW - 400 * DAY, NOW - 299 * DAY),))
    assert as_lago_says(OrgRecord("org"), None, [ancient], NOW).periods == ()
    assert as_lago_says(known, None, [ancient], NOW).periods == (ancient,)


class World:
    """A Lago with subscriptions, and tables of orgs and mappings."""

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

    async def customers(self) -> list[Customer]:
        return []

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


def test_only_known_or_mapped_orgs_are_refreshed() -> None:
    world = World()
    world.run("mapped")
    world.run("stranger")
    assert run_virtually(world.truth.refresh("mapped"))
    assert not run_virtually(world.truth.refresh("stranger"))
    assert list(world.orgs) == ["mapped"] and world.asked == ["mapped"]


def test_a_slow_lago_is_not_waited_for_longer_than_the_sender_waits() -> None:
    world = World()
    world.slow_s = 60

    async def slow() -> float:
        with pytest.raises(Unavailable, match="timeout"):
            await world.truth.refresh("mapped")
        return virtual_now()

    assert run_virtually(slow()) < 30


def test_a_poll_lists_all_subscriptions_once_and_then_asks_only_for_orgs_that_differ() -> None:
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


def test_a_poll_is_bounded_and_rate_limited() -> None:
    world = World()
    for number in range(1200):
        world.orgs[f"org_{number}"] = OrgRecord(f"org_{number}", periods=(Period("sub", NOW - DAY),))
    assert [run_virtually(world.truth.poll()) for _ in range(4)] == [500, 500, 200, 0]
    assert len(world.pauses) == 1198 and set(world.pauses) == {0.1}


def test_the_first_poll_runs_a_minute_after_the_start_and_then_every_quarter_of_an_hour() -> None:
    world = World()
    with pytest.raises(KeyboardInterrupt):
        run_virtually(world.truth.poll_every(900))
    assert world.pauses == [60, 900] and world.asked == [""]
