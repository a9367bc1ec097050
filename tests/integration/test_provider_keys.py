"""Users' provider keys over HTTP and in Postgres: who sees them, what is stored, and how the secret is replaced."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from cryptography.fernet import Fernet
from pydantic import SecretStr

from connectors.access.provider_keys.cipher import KeyCipher
from connectors.access.provider_keys.keys import new_key
from connectors.access.provider_keys.rotation import BATCH, rotate
from connectors.access.provider_keys.store import PostgresProviderKeys, Use
from connectors.config.settings import Settings
from connectors.postgres.pool import Database
from schemas.errors import ConfigurationError, Rejected, Unavailable
from tests.support.accounts import API, PROJECTOR, READER, as_role, owned_database
from tests.support.command import ended
from tests.support.database import rows, until
from tests.support.eventually import PATIENCE
from tests.support.identity_provider import Provider, identity_provider, names
from tests.support.kafka import Kafka
from tests.support.server import BEARER, Server, running_server, settings_for
from tests.support.stage import Stage

PATH = "/api/v1/provider-keys"
OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
MIDDLE = "canary0123456789canary"
CANARY = f"sk-{MIDDLE}wxyz"
NOW = datetime(2026, 11, 20, tzinfo=UTC)
DAYS = timedelta(days=90)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with identity_provider() as found:
        yield found


@pytest.fixture
def settings(kafka: Kafka, topic_prefix: str, stage: Stage, url: str, provider: Provider) -> Settings:
    partitions = stage.settings.kafka_partitions
    return settings_for(
        kafka,
        topic_prefix,
        kafka_partitions=partitions,
        database_url=SecretStr(url),
        provider_keys_secret=(SecretStr(NEW), SecretStr(OLD)),
        **names(provider),
    )


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    async with running_server(settings, ("api",)) as running:
        yield running


async def added(server: Server, by: dict[str, str] = BEARER, status: int = 201, **wanted: Any) -> dict[str, Any]:
    answer = await server.http.post(PATH, json={"provider": "openai", "api_key": CANARY} | wanted, headers=by)
    assert answer.status_code == status, answer.text
    assert MIDDLE not in answer.text
    result: dict[str, Any] = answer.json()
    return result


async def plugin(server: Server) -> dict[str, str]:
    body = {"name": "plugin", "scopes": ["provider_keys:decrypt"]}
    created = await server.http.post("/api/v1/access/keys", json=body, headers=BEARER)
    return {"Authorization": f"Bearer {created.json()['token']}"}


async def resolved(server: Server, by: dict[str, str], user: str = "ada", name: str = "openai") -> Any:
    return await server.http.post(f"{PATH}/resolve", json={"user_id": user, "provider": name}, headers=by)


async def test_a_user_stores_lists_and_revokes_an_own_key_and_calls_use_it_until_then(
    server: Server, provider: Provider, stage: Stage, url: str
) -> None:
    ada, eve, calls = provider.token(), provider.token(sub="eve"), await plugin(server)
    created = await added(server, ada, provider=" OpenAI ", key_name="my key")
    assert (created["user_id"], created["provider"], created["masked_key"]) == ("ada", "openai", "sk-...wxyz")
    listed = await server.http.get(PATH, headers=ada)
    assert [one["id"] for one in listed.json()["keys"]] == [created["id"]] and MIDDLE not in listed.text
    assert (await server.http.get(PATH, headers=eve)).json() == {"keys": []}
    answer = await resolved(server, calls)
    assert answer.headers["cache-control"] == "no-store"
    assert (answer.json()["api_key"], answer.json()["key_id"]) == (CANARY, created["id"])
    assert (await server.http.delete(f"{PATH}/{created['id']}", headers=eve)).status_code == 404
    gone = await server.http.delete(f"{PATH}/{created['id']}", headers=ada)
    assert (gone.status_code, gone.json()["is_active"]) == (200, False)
    nothing = await resolved(server, calls)
    assert (nothing.status_code, nothing.json()["reason"]) == (404, "no_provider_key")
    assert await rows(url, "SELECT encrypted_key FROM user_provider_keys") == [(None,)]
    lines = [line for line in stage.values(stage.topics.audit) if "provider" in line["action"]]
    assert [line["action"] for line in lines] == [
        *(f"POST {PATH}", "provider_keys.decrypt", f"DELETE {PATH}/{{provider_key_id}}")
    ]
    assert lines[1]["target"] == {"key_id": created["id"], "user_id": "ada", "provider": "openai"}
    assert lines[1]["actor"].startswith("key mb_") and lines[1]["count"] == 1


async def test_a_user_acts_only_for_itself_and_a_scope_acts_for_all(server: Server, provider: Provider) -> None:
    ada = provider.token()
    assert (await added(server, ada, 403, user_id="eve"))["reason"] == "missing_scope"
    assert (await server.http.get(PATH, params={"user_id": "eve"}, headers=ada)).status_code == 403
    assert (await added(server, status=422))["reason"] == "user_id_needed"
    created = await added(server, user_id="eve")
    assert [one["id"] for one in (await server.http.get(PATH, headers=BEARER)).json()["keys"]] == [created["id"]]
    scoped = provider.token(permissions=["provider_keys:read", "provider_keys:write"])
    assert (await added(server, scoped, 403, user_id="eve"))["reason"] == "other_user", "it is for one org"
    everywhere = provider.token(permissions=["provider_keys:write"], **{"https://example/orgs": ["*"]})
    await added(server, everywhere, user_id="bob")
    for by, expected in ((ada, 403), (scoped, 403), (await plugin(server), 404)):
        assert (await resolved(server, by, "nobody")).status_code == expected


async def test_a_name_is_in_use_until_its_key_is_revoked_and_the_newest_key_is_used(
    server: Server, provider: Provider
) -> None:
    ada, calls = provider.token(), await plugin(server)
    first = await added(server, ada, api_key=f"{CANARY}-first")
    assert (await added(server, ada, 409))["reason"] == "provider_key_exists"
    await added(server, ada, api_key=f"{CANARY}-second", key_name="new")
    assert (await resolved(server, calls)).json()["api_key"] == f"{CANARY}-second"
    await server.http.delete(f"{PATH}/{first['id']}", headers=ada)
    again = await added(server, ada, api_key=f"{CANARY}-third")
    assert again["id"] != first["id"]
    assert (await resolved(server, calls)).json()["api_key"] == f"{CANARY}-third"


SENSELESS: list[dict[str, Any]] = [
    {"api_key": "short"},
    {"api_key": "with a blank " * 3},
    {"api_key": "ü" * 30},
    {"provider": "Open AI"},
    {"provider": "openäi"},
    {"provider": ""},
    {"key_name": "a\0b"},
    {"api_keys": CANARY},
    {"api_key": 7},
]


async def test_an_invalid_key_is_refused_and_not_repeated(server: Server, provider: Provider) -> None:
    for wanted in SENSELESS:
        answer = await added(server, provider.token(), 422, **wanted)
        assert answer["reason"] == "invalid_fields", wanted
        assert str(wanted.get("api_key", CANARY)) not in json.dumps(answer), wanted


async def test_many_decryptions_are_one_audit_line_and_their_sum_is_in_the_table(
    settings: Settings, provider: Provider, stage: Stage, url: str
) -> None:
    async with running_server(settings, ("api",)) as server:
        await added(server, provider.token())
        calls = await plugin(server)
        answers = await asyncio.gather(*(resolved(server, calls) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {200}
        result = (await server.http.get("/metrics/prometheus")).text
        assert 'meterbridge_provider_keys_resolved_total{outcome="resolved"} 50.0' in result
        lines = [one for one in stage.values(stage.topics.audit) if one["action"] == "provider_keys.decrypt"]
        assert [line["count"] for line in lines] == [1]
    assert await until(url, "SELECT use_count FROM user_provider_keys", lambda count: count == 50)
    lines = [one for one in stage.values(stage.topics.audit) if one["action"] == "provider_keys.decrypt"]
    assert sum(line["count"] for line in lines) == 50, "the rest at the end of the process"
    assert await rows(url, "SELECT last_used_at IS NOT NULL, updated_at = created_at FROM user_provider_keys")


async def test_with_a_wrong_secret_no_process_starts_and_nothing_is_changed(settings: Settings, url: str) -> None:
    await _stored(url, OLD, "ada")
    before = await rows(url, "SELECT * FROM user_provider_keys")
    wrong = settings.model_copy(update={"provider_keys_secret": (SecretStr(NEW),)})
    with pytest.raises(ConfigurationError, match="PROVIDER_KEYS_SECRET"):
        async with running_server(wrong, ("api",)):
            pass
    assert await rows(url, "SELECT * FROM user_provider_keys") == before


async def test_without_a_secret_keys_can_only_be_listed_and_revoked(
    settings: Settings, provider: Provider, url: str
) -> None:
    await _stored(url, OLD, "ada")
    without = settings.model_copy(update={"provider_keys_secret": ()})
    async with running_server(without, ("api",)) as server:
        assert (await added(server, provider.token(), 501))["reason"] == "not_configured"
        assert (await resolved(server, BEARER)).status_code == 501
        [key] = (await server.http.get(PATH, headers=provider.token())).json()["keys"]
        assert (await server.http.delete(f"{PATH}/{key['id']}", headers=provider.token())).status_code == 200


async def test_keys_that_are_due_are_shown_in_the_list_and_by_a_metric(
    settings: Settings, provider: Provider, url: str
) -> None:
    await _stored(url, OLD, "ada", NOW - timedelta(days=900))
    await _stored(url, NEW, "eve", datetime.now(UTC))
    async with running_server(settings, ("api",)) as server:
        [key] = (await server.http.get(PATH, headers=provider.token())).json()["keys"]
        assert key["is_due"] is True
        created = await added(server, provider.token(), key_name="new")
        ends = datetime.fromisoformat(created["rotation_due"]) - datetime.fromisoformat(created["created_at"])
        assert (created["is_due"], ends) == (False, timedelta(days=90))
        found = dict.fromkeys(("active", "due", "old_secret", "unknown_secret"), "")
        deadline = time.monotonic() + 20 * PATIENCE
        while found["active"] != "2.0" and time.monotonic() < deadline:
            result = (await server.http.get("/metrics/prometheus")).text
            for state in found:
                found[state] = result.partition(f'meterbridge_provider_keys{{state="{state}"}} ')[2].partition("\n")[0]
            await asyncio.sleep(0.1)
        assert found == {"active": "2.0", "due": "1.0", "old_secret": "1.0", "unknown_secret": "0.0"}


async def test_no_log_topic_dump_or_answer_contains_the_key(
    settings: Settings,
    provider: Provider,
    kafka: Kafka,
    topic_prefix: str,
    stage: Stage,
    url: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A marker as a key: stored, listed, used, revoked, and sent wrongly in every place."""
    result: list[str] = []
    async with running_server(settings, ("api",)) as server:
        ada, calls = provider.token(), await plugin(server)
        created = await added(server, ada)
        assert (await resolved(server, calls)).json()["api_key"] == CANARY
        for by in (ada, calls, {}):
            for method, path, body in (
                ("GET", PATH, None),
                ("GET", f"{PATH}?user_id={CANARY}", None),
                ("DELETE", f"{PATH}/{CANARY}", None),
                ("POST", PATH, {"provider": CANARY, "api_key": CANARY}),
                ("POST", PATH, {"provider": "openai", "api_key": CANARY}),
                ("POST", PATH, {"provider": "openai", "api_key": CANARY[3:], "key_name": f"my {CANARY[3:]}"}),
                ("POST", PATH, {"provider": "openai", "api_key": "another-key", "key_name": CANARY}),
                ("POST", PATH, {"provider": "openai", "api_key": [CANARY]}),
                ("POST", PATH, {"provider": "openai", "api_key": f"{CANARY} {CANARY}"}),
                ("POST", f"{PATH}/resolve", {"user_id": "ada", "provider": CANARY}),
            ):
                answer = await server.http.request(method, path, json=body, headers=by)
                result.append(f"{answer.headers} {answer.text}")
        result.append((await server.http.get("/openapi.json")).text)
        result.append((await server.http.get("/docs")).text)
        result.append((await server.http.get("/metrics/prometheus")).text)
        dump = await dumped(url)
        await server.http.delete(f"{PATH}/{created['id']}", headers=ada)
    assert "user_provider_keys" in dump and created["id"] in dump and "sk-...wxyz" in dump
    # The test's client logs its requests.
    ours = [one for one in caplog.records if one.name not in ("httpx", "httpcore")]
    everything = [*result, dump, *capfd.readouterr(), *(f"{one.getMessage()} {vars(one)}" for one in ours)]
    topics = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=10 * PATIENCE).topics
    for topic in [name for name in topics if name.startswith(topic_prefix)]:
        everything += [f"{message.key()!r} {message.value()!r}" for message in stage.read(topic)]
    assert "provider_keys.decrypt" in "".join(everything)
    assert [text for text in everything if MIDDLE in text] == []


async def dumped(url: str) -> str:
    """Everything in the database, as `pg_dump` writes it."""
    process = await asyncio.create_subprocess_exec("pg_dump", url, stdout=asyncio.subprocess.PIPE)
    result, _ = await asyncio.wait_for(process.communicate(), 60 * PATIENCE)
    assert process.returncode == 0
    return result.decode()


async def _stored(url: str, secret: str, user: str, at: datetime = NOW) -> str:
    with Database(url, size=1) as database:
        return await _added(PostgresProviderKeys(database), secret, user, at)


async def _added(store: PostgresProviderKeys, secret: str, user: str, at: datetime = NOW) -> str:
    key, cipher = new_key(user, "openai", "default", CANARY, "test", at, timedelta(days=90)), KeyCipher([secret])
    await store.add(key, cipher.sealed(key, CANARY), KeyCipher([NEW, OLD]).secret_ids)
    return key.key_id


async def test_all_keys_are_encrypted_again_with_the_newest_secret_and_a_killed_run_continues(url: str) -> None:
    with Database(url, size=1) as database:
        store = PostgresProviderKeys(database)
        for number in range(450):
            await _added(store, OLD, f"user-{number}")

        class Killed(Exception):
            pass

        def killed(_keys: int) -> None:
            raise Killed

        with pytest.raises(Killed):
            await rotate(store, [NEW, OLD], killed)
        done = await rotate(store, [NEW, OLD])
        assert (done.keys, done.already, done.encrypted_again, done.left) == (450, 200, 250, 0)
        newest = KeyCipher([NEW])
        for number in range(0, 450, 50):
            found = await store.live(f"user-{number}", "openai")
            assert found is not None and newest.opened(*found) == CANARY
        again = await rotate(store, [NEW])
        assert (again.already, again.encrypted_again) == (450, 0)


async def test_a_rotation_without_an_older_secret_changes_nothing(url: str) -> None:
    """No matter in which batch the key is that cannot be decrypted."""
    with Database(url, size=1) as database:
        store = PostgresProviderKeys(database)
        for number in range(BATCH + 1):
            await _added(store, NEW, f"user-{number}")
        last = replace(new_key("eve", "openai", "default", CANARY, "test", NOW, DAYS), key_id=f"pk_{'f' * 16}")
        await store.add(last, KeyCipher([OLD]).sealed(last, CANARY), KeyCipher([NEW, OLD]).secret_ids)
    before = await rows(url, "SELECT * FROM user_provider_keys ORDER BY key_id")
    third = Fernet.generate_key().decode()
    with Database(url, size=1) as database:
        with pytest.raises(Unavailable, match="provider_keys_secret_wrong"):
            await rotate(PostgresProviderKeys(database), [third, NEW])
        key = new_key("bob", "openai", "default", CANARY, "test", NOW, timedelta(days=90))
        with pytest.raises(Unavailable, match="provider_keys_secret_wrong"):
            await PostgresProviderKeys(database).add(key, KeyCipher([third]).sealed(key, CANARY), [third])
    assert await rows(url, "SELECT * FROM user_provider_keys ORDER BY key_id") == before


async def test_the_command_reports_its_result_and_lists_and_revokes(stage: Stage, url: str) -> None:
    key_id = await _stored(url, OLD, "ada")
    environ = {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": stage.settings.kafka_bootstrap_servers,
        "KAFKA_PARTITIONS": str(stage.settings.kafka_partitions),
        "TOPIC_PREFIX": stage.settings.topic_prefix,
        "DATABASE_URL": url,
        "LOG_LEVEL": "error",
    }
    unset = await ended(environ, "keys", "rotate-secret")
    assert (unset.code, "PROVIDER_KEYS_SECRET must be set" in unset.err) == (2, True)
    wrong = await ended({**environ, "PROVIDER_KEYS_SECRET": NEW}, "provider-keys", "rotate-secret")
    assert (wrong.code, "not in PROVIDER_KEYS_SECRET" in wrong.err) == (1, True)
    malformed = await ended({**environ, "PROVIDER_KEYS_SECRET": "x"}, "provider-keys", "list")
    assert (malformed.code, "PROVIDER_KEYS_SECRET must be 32 random bytes" in malformed.err) == (2, True)
    done = await ended({**environ, "PROVIDER_KEYS_SECRET": f"{NEW},{OLD}"}, "keys", "rotate-secret", "--json")
    assert (done.code, done.json) == (0, {"keys": 1, "already": 0, "encrypted_again": 1, "left": 0}), done.err
    listed = await ended(environ, "provider-keys", "list", "--json")
    assert [key["id"] for key in listed.json["keys"]] == [key_id] and MIDDLE not in listed.out
    assert "sk-...wxyz" in (await ended(environ, "provider-keys", "list", "--user", "ada")).out
    gone = await ended(environ, "provider-keys", "revoke", key_id, "--json")
    assert (gone.code, gone.json["keys"][0]["is_active"]) == (0, False)
    none = await ended(environ, "provider-keys", "revoke", f"pk_{'0' * 16}")
    assert (none.code, f"no provider key with the id pk_{'0' * 16}." in none.err) == (1, True)
    pasted = await ended(environ, "provider-keys", "revoke", "sk-pasted-by-mistake")
    assert (pasted.code, "not the id of a provider key" in pasted.err, "sk-" in pasted.err) == (1, True, False)
    actions = [line["action"] for line in stage.values(stage.topics.audit)]
    assert actions == ["provider_keys.rotate_secret", "provider_keys.rotate_secret", "provider_keys.revoke"]


async def test_the_database_refuses_two_keys_of_one_name_and_a_revoked_key_with_its_ciphertext(url: str) -> None:
    await _stored(url, OLD, "ada")
    with pytest.raises(Rejected, match="provider_key_exists"):
        await _stored(url, OLD, "ada")
    for statement in (
        "INSERT INTO user_provider_keys SELECT 'pk_2', user_id, provider, key_name, encrypted_key, secret_id, masked_key, is_active, created_at, created_by, updated_at, last_used_at, use_count, rotation_due FROM user_provider_keys",
        "UPDATE user_provider_keys SET is_active = false, revoked_at = now()",
        "UPDATE user_provider_keys SET use_count = -1",
    ):
        with pytest.raises(Exception, match="user_provider_keys"):
            await rows(url, statement)
    await rows(url, "UPDATE user_provider_keys SET key_name = 'other'")
    assert await rows(url, "SELECT updated_at > created_at FROM user_provider_keys") == [(True,)]


async def test_with_its_role_the_api_stores_the_keys_and_other_roles_do_not_see_them(postgres_url: str) -> None:
    async with owned_database(postgres_url) as owned:
        key_id = await _stored(as_role(owned, API), OLD, "ada")
        with Database(as_role(owned, API), size=1) as database:
            store = PostgresProviderKeys(database)
            await store.used({key_id: Use(2, NOW)})
            assert (await rotate(store, [NEW, OLD])).encrypted_again == 1
            await store.revoke(key_id, NOW)
        await _stored(as_role(owned, API), OLD, "ada")
        for role in (PROJECTOR, READER):
            with pytest.raises(Exception, match="denied"):
                await rows(as_role(owned, role), "SELECT masked_key FROM user_provider_keys")
        with pytest.raises(Exception, match="denied"):
            await rows(as_role(owned, API), "UPDATE user_provider_keys SET user_id = 'eve'")
