"""`meterbridge provider-keys`: list and revoke users' keys of LLM providers, and encrypt them under a new secret."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TypeVar

import typer

from connectors.access.provider_keys.keys import KEY_ID, ProviderKey
from connectors.access.provider_keys.rotation import Rotated, rotate
from connectors.access.provider_keys.store import PostgresProviderKeys
from connectors.api.provider_keys import provider_key_shown
from connectors.cli.base import progress, say, table_of
from connectors.cli.optional_database import ask_database
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail
from connectors.config.connections import all_revealed, deployment_of
from connectors.config.settings import Settings
from connectors.operations.audit_record import audited
from connectors.operations.sender import CommandProducer
from schemas.plurals import numbered

T = TypeVar("T")
_COLUMNS = ("id", "user_id", "provider", "key_name", "masked_key", "state", "created", "rotation_due", "uses")


def list_provider_keys(user: str, *, as_json: bool) -> None:
    """Run `meterbridge provider-keys list`."""
    with one_sentence():
        keys = _with_store(settings_of_command(), lambda store: store.of_user(user) if user else store.all())
    _say(keys, as_json=as_json)


def revoke_provider_key(key_id: str, *, as_json: bool) -> None:
    """Run `meterbridge provider-keys revoke`."""
    with one_sentence():
        settings = settings_of_command()

        async def ended(store: PostgresProviderKeys) -> ProviderKey:
            key = await store.get(key_id)
            if key is None:
                if KEY_ID.fullmatch(key_id) is None:  # it is not printed: it may be the key itself
                    fail("KEY_ID: not the id of a provider key. Give one such as pk_3f9a0c12d4e51b07.", 1)
                fail(f"no provider key with the id {key_id}. `meterbridge provider-keys list` shows all.", 1)
            if key.is_active:
                target = {"key_id": key.key_id, "user_id": key.user_id, "provider": key.provider}
                await asyncio.to_thread(_recorded, settings, "provider_keys.revoke", target)
                await store.revoke(key_id, datetime.now(UTC))
            return await store.get(key_id) or key

        key = _with_store(settings, ended)
    _say([key], as_json=as_json)


def rotate_secret(*, as_json: bool) -> None:
    """Run `meterbridge provider-keys rotate-secret` and `meterbridge keys rotate-secret`."""
    with one_sentence():
        settings = settings_of_command()
        secrets = all_revealed(settings.provider_keys_secret)
        if not secrets:
            fail("PROVIDER_KEYS_SECRET must be set: the newest secret first, then the older ones.", 2)

        async def rotated(store: PostgresProviderKeys) -> Rotated:
            count = sum(found.keys for found in await store.totals(datetime.now(UTC)))
            await asyncio.to_thread(_recorded, settings, "provider_keys.rotate_secret", {"keys": str(count)})
            with progress("provider keys", count, quiet=as_json) as step:
                return await rotate(store, secrets, step)

        done = _with_store(settings, rotated)
    say(asdict(done), as_json=as_json, table=lambda: _report(done))
    if done.left:
        raise typer.Exit(1)


def _report(done: Rotated) -> str:
    sentence = f"{numbered(done.keys, 'key')}: encrypted again {done.encrypted_again}, already under the newest secret {done.already}."
    if done.left:
        return f"{sentence}\n{numbered(done.left, 'key is', 'keys are')} under an older secret still: give every process the new list, and repeat this."
    return f"{sentence}\nThe newest secret alone decrypts all of them: you can remove the older ones."


def _with_store(settings: Settings, do: Callable[[PostgresProviderKeys], Awaitable[T]]) -> T:
    return ask_database(settings, lambda database: do(PostgresProviderKeys(database)))


def _recorded(settings: Settings, action: str, target: dict[str, str]) -> None:
    deployment = deployment_of(settings)
    audited(deployment, CommandProducer(deployment.kafka), action, target, count=1)


def _say(keys: list[ProviderKey], *, as_json: bool) -> None:
    now = datetime.now(UTC)
    rows = [_row(key, now) for key in keys]
    say(
        {"keys": [provider_key_shown(key, now) for key in keys]},
        as_json=as_json,
        table=lambda: table_of(_COLUMNS, rows) if rows else "There are no provider keys.",
    )


def _row(key: ProviderKey, now: datetime) -> list[object]:
    state = "revoked" if not key.is_active else "due" if key.is_due(now) else "active"
    days = f"{key.created_at:%Y-%m-%d}", f"{key.rotation_due:%Y-%m-%d}"
    return [key.key_id, key.user_id, key.provider, key.key_name, key.masked_key, state, *days, key.use_count]
