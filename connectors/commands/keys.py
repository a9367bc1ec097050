"""`meterbridge keys`: API keys of the management API, made and ended without the API."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError

from connectors.access.keys import ApiKey, expiring, mint, successor
from connectors.access.scopes import EVERYTHING, SCOPES
from connectors.commands.base import AsJson, duration_s, fail, one_sentence, say, settings_of_command, table_of
from connectors.connections import deployment_of, postgres_url
from connectors.http.api.keys import MAX_OVERLAP_HOURS, Prefix, key_shown
from connectors.operations.audit import audited, who
from connectors.operations.sending import Sender
from connectors.postgres.api_keys import PostgresKeys
from connectors.postgres.pool import Database
from connectors.settings import Settings

keys = typer.Typer(help="API keys of the management API. Needs Postgres.", no_args_is_help=True)

KeyId = Annotated[str, typer.Argument(help="The id that `keys list` shows.")]
T = TypeVar("T")


@keys.command(epilog="Example: meterbridge keys create --name dashboard --scope orgs:read --org org_acme --expires 90d")
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scope: Annotated[list[str], typer.Option(help=f"Of {', '.join(SCOPES)}, or {EVERYTHING}; may be repeated.")],
    org: Annotated[
        list[str] | None, typer.Option(help="Restrict the key to this org; may be repeated. Default: all orgs.")
    ] = None,
    customer_prefix: Annotated[
        list[str] | None,
        typer.Option(
            help="The key may map customer ids that begin with this; may be repeated. A key of orgs needs it to map new ids."
        ),
    ] = None,
    expires: Annotated[str, typer.Option(help="The key expires after this time, like 90d. Default: never.")] = "",
    as_json: AsJson = False,
) -> None:
    """Create a key and show its token; the token is shown only once."""
    if not {EVERYTHING, *SCOPES}.issuperset(scope):
        fail(f"--scope takes {', '.join(SCOPES)}, or {EVERYTHING}.", 2)
    now = _now()
    ends = now + timedelta(seconds=duration_s(expires)) if expires else None
    key, token = mint(name, scope, org or None, who(), now, ends, _prefixes(customer_prefix))
    with one_sentence():
        settings = settings_of_command()
        _with_store(settings, lambda store: _recorded(settings, "keys.create", [key], lambda: store.add(key)))
    _say_made(key, token, as_json=as_json)


@keys.command("list", epilog="Example: meterbridge keys list --json")
def list_keys(as_json: AsJson = False) -> None:
    """List all keys without their tokens, the newest first."""
    with one_sentence():
        found = _with_store(settings_of_command(), lambda store: store.all())
    rows = [key_shown(key, _now()) for key in found]
    say({"keys": rows}, as_json=as_json, table=lambda: _table(rows) if rows else "There are no keys.")


@keys.command(epilog="Example: meterbridge keys rotate 3f9a0c12d4e5 --overlap 24h")
def rotate(
    key_id: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old key stays valid, 720h at most.")] = "24h",
    as_json: AsJson = False,
) -> None:
    """Replace a key and show the new token once; the old key stays valid for a while."""
    lives_on = timedelta(seconds=duration_s(overlap))
    if lives_on > timedelta(hours=MAX_OVERLAP_HOURS):
        fail(f"--overlap is {MAX_OVERLAP_HOURS}h at most.", 2)
    now = _now()

    async def replaced(store: PostgresKeys) -> tuple[ApiKey, str]:
        old = await _existing(store, key_id)
        if old.state(now) != "live":
            fail("the key is revoked or expired: make a new one.", 1)
        key, token = successor(old, who(), now)
        ending = expiring(old, now, lives_on)
        await _recorded(settings, "keys.rotate", [old, key], lambda: store.replace(ending, key))
        return key, token

    with one_sentence():
        settings = settings_of_command()
        key, token = _with_store(settings, replaced)
    _say_made(key, token, as_json=as_json)


@keys.command(epilog="Example: meterbridge keys revoke 3f9a0c12d4e5")
def revoke(key_id: KeyId, as_json: AsJson = False) -> None:
    """Revoke a key: it is refused within seconds. Safe to repeat."""

    async def ended(store: PostgresKeys) -> ApiKey:
        key = await _existing(store, key_id)
        if key.revoked_at is None:
            await _recorded(settings, "keys.revoke", [key], lambda: store.revoke(key_id, _now()))
        return await _existing(store, key_id)

    with one_sentence():
        settings = settings_of_command()
        row = key_shown(_with_store(settings, ended), _now())
    say(row, as_json=as_json, table=lambda: _table([row]))


def _prefixes(given: list[str] | None) -> list[str] | None:
    try:
        return None if not given else TypeAdapter(list[Prefix]).validate_python(given)
    except ValidationError:
        fail("--customer-prefix takes 1 to 255 characters, no control characters, no blank at its beginning.", 2)


def _with_store(settings: Settings, do: Callable[[PostgresKeys], Awaitable[T]]) -> T:
    async def done() -> T:
        database = Database(postgres_url(settings), size=1)
        try:
            return await do(PostgresKeys(database))
        finally:
            database.terminate()

    return asyncio.run(done())


async def _recorded(settings: Settings, action: str, of: list[ApiKey], do: Callable[[], Awaitable[None]]) -> None:
    """The line in the audit log first."""
    target = {f"key_{number}": key.prefix for number, key in enumerate(of)} | {"name": of[-1].name}
    target["scopes"] = " ".join(sorted(of[-1].scopes))
    target |= {} if of[-1].orgs is None else {"orgs": " ".join(sorted(of[-1].orgs))}
    target |= {} if of[-1].prefixes is None else {"customer_prefixes": " ".join(sorted(of[-1].prefixes))}
    deployment = deployment_of(settings)
    await asyncio.to_thread(audited, deployment, Sender(deployment.kafka), action, target, count=1)
    await do()


async def _existing(store: PostgresKeys, key_id: str) -> ApiKey:
    key = await store.get(key_id)
    if key is None:
        fail("there is no such key.", 1)
    return key


def _say_made(key: ApiKey, token: str, *, as_json: bool) -> None:
    row = key_shown(key, _now())
    say(
        {**row, "token": token},
        as_json=as_json,
        table=lambda: f"{token}\nIt is shown this once; its id is {key.key_id}.",
    )


def _table(rows: list[dict[str, Any]]) -> Any:
    shown = ("id", "name", "state", "scopes", "orgs", "customer_prefixes", "created_by", "expires_at", "last_used_at")
    return table_of(shown, [[_cell(row[column]) for column in shown] for row in rows])


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


def _now() -> datetime:
    return datetime.now(UTC)
