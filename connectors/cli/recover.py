"""`meterbridge recover`: bring back into an empty Kafka cluster what Postgres has of a lost one."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from connectors.cli.account_tables import lago_key
from connectors.cli.base import one_sentence, say, settings_of_command, table_of
from connectors.config.connections import deployment_of, postgres_url
from connectors.config.settings import Settings
from connectors.operations.recovery import Recovery
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
    "ledgers": "ledgers that start again",
}


def recover(comment: str, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """`meterbridge recover`."""
    do = yes and not dry_run
    with one_sentence():
        settings = settings_of_command()
        lago_key(settings)
        done = asyncio.run(_recovered(settings, comment, do=do))
    answer = _of(done)
    say(answer | {"done": do}, as_json=as_json, table=lambda: _table(answer, do=do))


async def _recovered(settings: Settings, why: str, *, do: bool) -> Recovery:
    async with AsyncExitStack() as stack:
        lagos = await open_lagos(stack, settings, 1)
        return await bring_back(deployment_of(settings), postgres_url(settings), lagos, why, do=do)


def _of(done: Recovery) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(done)
    return told | {"lost_usd": plain(done.lost_usd)}


def _table(answer: dict[str, Any], *, do: bool) -> Any:
    rows = [(what, str(answer[name])) for name, what in _WHAT.items()]
    title = "brought back:" if do else "would be brought back, with --yes:"
    return table_of(("what", "number"), rows, title)
