"""Each variable of the meter, from the environment to the bill: another value than the default bills differently."""

from collections.abc import Callable
from typing import Any

import pytest

from connectors.config.settings import Settings, load_settings
from schemas.customers import OrgRecord, Period
from schemas.ledger import Position
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy
from schemas.records import LagoEvent
from streams.core.mapping.organizations import unreachable
from streams.core.metering.close_window import due_windows, seal
from streams.core.metering.lago_event import part_prefix
from tests.support.calls import NOON, raw, slp
from tests.support.folding import Partition

Show = Callable[[MeterPolicy], Any]
#: A number of tokens with which only the price of the whole call is high.
MANY = {"prompt_tokens": 5000, "completion_tokens": 5000, "total_tokens": 10_000}


def by_decision(**fields: Any) -> Show:
    """The decision about a call with these fields."""
    return lambda policy: list(Partition(policy).take(raw(0, slp(1, **fields))).decisions)


def events(policy: MeterPolicy, *calls: dict[str, Any], since_us: int = 0, after_s: int = 3600) -> list[LagoEvent]:
    """The events sealed `after_s` seconds after noon, of a customer whose subscription started at `since_us`."""
    ledger = Partition(policy).take(*(raw(0, call) for call in calls)).ledger
    windows = due_windows(ledger, NOON + after_s * SECOND_US, policy, 100)
    orgs = {"org-acme": OrgRecord("org-acme", periods=(Period("sub-acme", since_us),))}
    changes = seal(Position(), windows, orgs, policy, part_prefix(policy.deployment, "topic", 3), 3, NOON + HOUR_US)
    return [sealed.event for sealed in changes.sealed]


def of_team(number: int, team: str) -> dict[str, Any]:
    return slp(number, metadata={"user_api_key_team_id": team})


def cents(policy: MeterPolicy) -> list[str]:
    """The cents of a call of slightly more than 2 dollars."""
    return [event.precise_total_amount_cents for event in events(policy, slp(1, cost="2.1234567891234"))]


#: A variable, a value that is not its default, what shows it, and what is seen by default and with the value.
CASES: list[tuple[str, str, Show, Any, Any]] = [
    (
        "DEPLOYMENT_NAME",
        "eu-1",
        lambda policy: [event.transaction_id for event in events(policy, slp(1))],
        ["meterbridge-topic-3-0"],
        ["eu-1-topic-3-0"],
    ),
    (
        "LAGO_EVENT_CODE",
        "tokens",
        lambda policy: [one.code for one in events(policy, slp(1))],
        ["ai_usage"],
        ["tokens"],
    ),
    (
        "WINDOW_SECONDS",
        "3600",
        lambda policy: [one.properties["window_end"][11:19] for one in events(policy, slp(1), after_s=7200)],
        ["12:01:00"],
        ["13:00:00"],
    ),
    (
        "GRACE_SECONDS",
        "30",
        lambda policy: [len(events(policy, slp(1), after_s=seconds)) for seconds in (64, 65, 89, 90)],
        [0, 1, 1, 1],
        [0, 0, 0, 1],
    ),
    (
        "WINDOW_GROUP_BY",
        "team_id",
        lambda policy: [one.properties.get("team_id") for one in events(policy, of_team(1, "a"), of_team(2, "b"))],
        [None],
        ["a", "b"],
    ),
    (
        "DEDUPE_RETENTION_HOURS",
        "48",
        by_decision(at_us=NOON - 30 * HOUR_US),
        ["rejected:beyond_horizon"],
        ["billable"],
    ),
    (
        "OUT_OF_PERIOD_POLICY",
        "hold",
        lambda policy: [one.timestamp for one in events(policy, slp(1), since_us=NOON + HOUR_US // 2)],
        [f"{(NOON + HOUR_US // 2) // SECOND_US}.000"],
        [],
    ),
    ("COST_DECIMALS", "6", cents, ["212.3456789123"], ["212.3457"]),
    ("CACHE_HIT_POLICY", "bill", by_decision(cache_hit=True), ["cache_hit"], ["billable"]),
    ("BYOK_POLICY", "skip", by_decision(byok=True), ["billable"], ["byok"]),
    (
        "CLIENT_OAUTH_POLICY",
        "bill",
        by_decision(metadata={"used_client_oauth_token": True}),
        ["own_subscription"],
        ["billable"],
    ),
    (
        "SILENT_EXPERIMENT_POLICY",
        "bill",
        by_decision(metadata={"is_silent_experiment": True}),
        ["silent_experiment"],
        ["billable"],
    ),
    (
        "LAGO_ORGANIZATIONS",
        '[{"id": "eu", "url": "https://eu.example", "key": "k"}]',
        lambda policy: unreachable("eu", policy.organizations),
        "unknown_organization",
        "",
    ),
    ("MAX_USD_PER_CALL", "100", by_decision(cost="101"), ["billable"], ["rejected:implausible_cost"]),
    ("MAX_USD_PER_CALL", "3000", by_decision(cost="2000", **MANY), ["rejected:implausible_cost"], ["billable"]),
    ("MAX_USD_PER_TOKEN", "1", by_decision(cost="50"), ["billable"], ["rejected:implausible_cost"]),
    ("MAX_USD_PER_TOKEN", "20", by_decision(cost="400"), ["rejected:implausible_cost"], ["billable"]),
]


@pytest.mark.parametrize(("variable", "value", "show", "by_default", "as_set"), CASES, ids=[one[0] for one in CASES])
def test_each_variable_changes_what_is_billed(
    variable: str, value: str, show: Show, by_default: Any, as_set: Any
) -> None:
    assert show(load_settings({}).meter_policy()) == by_default
    assert show(load_settings({variable: value}).meter_policy()) == as_set


def test_every_variable_of_the_meter_has_a_case() -> None:
    asked = set[str]()
    parts = {"open_organizations": "lago_organizations"}  # those that are not closed

    class Asked:
        def __getattr__(self, name: str) -> Any:
            asked.add(parts.get(name, name).upper())
            return getattr(Settings(), name)

    Settings.meter_policy(Asked())  # type: ignore[arg-type]
    assert asked == {variable for variable, *_ in CASES}
