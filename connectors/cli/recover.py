"""`meterbridge recover`: restores the data of a lost Kafka cluster from Postgres into an empty cluster."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Literal

import msgspec

from connectors.cli.account_tables import lago_key
from connectors.cli.base import say, table_of
from connectors.cli.running import one_sentence, settings_of_command
from connectors.config.connections import deployment_of, postgres_url
from connectors.config.settings import Settings
from connectors.operations.recovery import Choices, Recovery
from connectors.operations.recovery import recover as bring_back
from connectors.processes.lagos import open_lagos
from schemas.money import plain

_WHAT = {
    "customers": "mappings of customers",
    "orgs": "orgs",
    "rates": "versions of the rate card",
    "waiting": "events that Lago has not taken: posted again",
    "dead": "dead letters",
    "only_at_lago": "events that Lago has and Postgres did not",
    "lost_calls": "calls in no event: backfill bills them",
    "lost_usd": "their dollars",
    "unknown_calls": "billed calls that the usage log does not have",
    "undecided_calls": "held calls that may be in events that only Lago has",
    "undecided_usd": "their dollars",
    "undecided_events": "these events",
    "lost_rates": "rate cards of which nothing is left",
    "not_asked": "orgs of closed Lago organisations: not asked for",
    "ledgers": "ledgers that start again",
}


def recover(
    comment: str,
    *,
    undecided: Literal["billed", "lost"] | None,
    accept_lost_rates: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run `meterbridge recover`."""
    do = yes and not dry_run
    choices = Choices(undecided or "", accept_lost_rates)
    with one_sentence():
        settings = settings_of_command()
        lago_key(settings)
        done = asyncio.run(_recovered(settings, comment, choices, do=do))
    answer = _of(done)
    say(answer | {"done": do}, as_json=as_json, table=lambda: _table(answer, do=do))


async def _recovered(settings: Settings, why: str, choices: Choices, *, do: bool) -> Recovery:
    async with AsyncExitStack() as stack:
        lagos = await open_lagos(stack, settings, 1)
        deployment, url, closed = deployment_of(settings), postgres_url(settings), settings.closed_organizations
        return await bring_back(deployment, url, lagos, why, do=do, closed=closed, choices=choices)


def _of(done: Recovery) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(done)
    return told | {"lost_usd": plain(done.lost_usd), "undecided_usd": plain(done.undecided_usd)}


def _table(answer: dict[str, Any], *, do: bool) -> Any:
    rows = [
        (what, ", ".join(value) if isinstance(value := answer[name], list) else str(value))
        for name, what in _WHAT.items()
    ]
    title = "brought back:" if do else "would be brought back, with --yes:"
    return table_of(("what", "number"), rows, title)
