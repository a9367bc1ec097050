"""`meterbridge keys`: create, list, rotate and revoke API keys of the management API, without the API."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from connectors.access.key_store import PostgresKeys
from connectors.access.keys import ApiKey, expiring, mint, successor
from connectors.access.scopes import EVERYTHING, SCOPES
from connectors.api.keys import MAX_OVERLAP_HOURS, Prefix, key_shown
from connectors.cli.base import duration_s, say, table_of
from connectors.cli.optional_database import ask_database
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail, print_error
from connectors.config.connections import deployment_of
from connectors.config.settings import Settings
from connectors.operations.audit_record import audited, who
from connectors.operations.known_ids import known_org
from connectors.operations.sender import CommandProducer
from streams.runtime.clock import utc_now

T = TypeVar("T")
#: What the table shows for a key that is not limited.
_ALL: Final = "all"
_LIMITS: Final = ("orgs", "customer_prefixes")
_KEY_ID: Final = re.compile(r"[0-9a-f]{12}")


def create(
    name: str,
    scope: list[str],
    org: list[str] | None,
    customer_prefix: list[str] | None,
    expires: str,
    *,
    as_json: bool,
) -> None:
    """Run `meterbridge keys create`."""
    if unknown := sorted(set(scope) - {EVERYTHING, *SCOPES}):
        fail(f"--scope: {unknown[0]!r} is not a scope. Give one of {', '.join(SCOPES)}, or {EVERYTHING}.", 2)
    now = utc_now()
    ends = now + timedelta(seconds=duration_s(expires, "--expires", 1)) if expires else None
    key, token = mint(name, scope, org or None, who(), now, ends, _prefixes(customer_prefix))
    with one_sentence():
        settings = settings_of_command()
        _with_store(settings, lambda store: _recorded(settings, "keys.create", [key], lambda: store.add(key)))
        for org_id in org or ():
            _warn_of_unknown(settings, org_id)
    _say_made(key, token, as_json=as_json)


def list_keys(*, as_json: bool) -> None:
    """Run `meterbridge keys list`."""
    with one_sentence():
        keys = _with_store(settings_of_command(), lambda store: store.all())
    rows = [key_shown(key, utc_now()) for key in keys]
    say({"keys": rows}, as_json=as_json, table=lambda: _table(rows) if rows else "There are no keys.")


def rotate(key_id: str, overlap: str, *, as_json: bool) -> None:
    """Run `meterbridge keys rotate`."""
    lives_on = timedelta(seconds=duration_s(overlap, "--overlap"))
    if lives_on > timedelta(hours=MAX_OVERLAP_HOURS):
        fail(f"--overlap: {overlap} is too long. Give at most {MAX_OVERLAP_HOURS}h, for example 24h.", 2)
    now = utc_now()

    async def replaced(store: PostgresKeys) -> tuple[ApiKey, str]:
        old = await _existing(store, key_id)
        if old.state(now) != "live":
            fail(f"the key {key_id} is revoked or expired. `meterbridge keys create` makes a new one.", 1)
        key, token = successor(old, who(), now)
        ending = expiring(old, now, lives_on)
        await _recorded(settings, "keys.rotate", [old, key], lambda: store.replace(ending, key))
        return key, token

    with one_sentence():
        settings = settings_of_command()
        key, token = _with_store(settings, replaced)
    _say_made(key, token, as_json=as_json)


def revoke(key_id: str, *, as_json: bool) -> None:
    """Run `meterbridge keys revoke`."""

    async def ended(store: PostgresKeys) -> ApiKey:
        key = await _existing(store, key_id)
        if key.revoked_at is None:
            await _recorded(settings, "keys.revoke", [key], lambda: store.revoke(key_id, utc_now()))
        return await _existing(store, key_id)

    with one_sentence():
        settings = settings_of_command()
        row = key_shown(_with_store(settings, ended), utc_now())
    say(row, as_json=as_json, table=lambda: _table([row]))


def _warn_of_unknown(settings: Settings, org_id: str) -> None:
    """Print a sentence if no org has this id: a key may be made before its org, but the id may also be misspelt."""
    found = ask_database(settings, lambda database: known_org(database, org_id))
    if not found.known:
        meant = f": {found.meant}" if found.meant else "."
        print_error(f"meterbridge: the key is restricted to {org_id}, an org that is not known{meant}")


def _prefixes(given: list[str] | None) -> list[str] | None:
    try:
        return None if not given else TypeAdapter(list[Prefix]).validate_python(given)
    except ValidationError:
        fail(
            "--customer-prefix: give 1 to 255 characters, no control characters and no blank at the beginning, for example acme-.",
            2,
        )


def _with_store(settings: Settings, do: Callable[[PostgresKeys], Awaitable[T]]) -> T:
    return ask_database(settings, lambda database: do(PostgresKeys(database)))


async def _recorded(settings: Settings, action: str, of: list[ApiKey], do: Callable[[], Awaitable[None]]) -> None:
    """Write the audit line, then make the change."""
    target = {f"key_{number}": key.prefix for number, key in enumerate(of)} | {"name": of[-1].name}
    target["scopes"] = " ".join(sorted(of[-1].scopes))
    target |= {} if of[-1].orgs is None else {"orgs": " ".join(sorted(of[-1].orgs))}
    target |= {} if of[-1].prefixes is None else {"customer_prefixes": " ".join(sorted(of[-1].prefixes))}
    deployment = deployment_of(settings)
    await asyncio.to_thread(audited, deployment, CommandProducer(deployment.kafka), action, target, count=1)
    await do()


async def _existing(store: PostgresKeys, key_id: str) -> ApiKey:
    key = await store.get(key_id)
    if key is None:
        if _KEY_ID.fullmatch(key_id) is None:  # it is not printed: it may be a whole token
            fail("KEY_ID: not the id of an API key. Give the 12 characters between mb_ and the next _ of its token.", 1)
        fail(f"no API key with the id {key_id}. `meterbridge keys list` shows all.", 1)
    return key


def _say_made(key: ApiKey, token: str, *, as_json: bool) -> None:
    row = key_shown(key, utc_now())
    say(
        {**row, "token": token},
        as_json=as_json,
        table=lambda: f"{token}\nThe token is shown only this once. The key's id is {key.key_id}.",
    )


def _table(rows: list[dict[str, Any]]) -> Any:
    columns = ("id", "name", "state", "scopes", "orgs", "customer_prefixes", "created_by", "expires_at", "last_used_at")
    return table_of(
        columns,
        [
            [_ALL if column in _LIMITS and row[column] is None else _cell(row[column]) for column in columns]
            for row in rows
        ],
    )


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case list():
            return " ".join(value)
        case datetime():
            return f"{value:%Y-%m-%d %H:%M}Z"
        case _:
            return str(value)
