"""API keys over HTTP and from the command line, with real Postgres; every change of them is in the audit log."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from connectors.access import key_store
from connectors.access.key_store import PostgresKeys
from connectors.access.keys import expiring, successor
from connectors.cli.main import app
from connectors.config.settings import Settings
from connectors.postgres.pool import Database
from schemas.errors import Rejected
from tests.support.database import rows, until
from tests.support.eventually import PATIENCE, soon
from tests.support.kafka import Kafka
from tests.support.ports import free_port
from tests.support.server import BEARER, Server, running_server, settings_for
from tests.support.stage import Stage

KEYS = "/api/v1/access/keys"
DAY = timedelta(days=1)


@pytest.fixture
def settings(kafka: Kafka, topic_prefix: str, stage: Stage, url: str) -> Settings:
    partitions = stage.settings.kafka_partitions
    return settings_for(kafka, topic_prefix, kafka_partitions=partitions, database_url=SecretStr(url))


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    async with running_server(settings, ("api",)) as running:
        await running.stats()  # endpoints that need a key answer 503 until the topics have been read
        yield running


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def created(server: Server, status: int = 201, by: dict[str, str] = BEARER, **wanted: Any) -> dict[str, Any]:
    answer = await server.http.post(KEYS, json={"name": "a key", "scopes": ["stats:read"]} | wanted, headers=by)
    assert answer.status_code == status, answer.text
    result: dict[str, Any] = answer.json()
    return result


async def status(server: Server, token: str, path: str = "/webhooks/stats") -> int:
    return (await server.http.get(path, headers=bearer(token))).status_code


async def becomes(wanted: int, server: Server, token: str, path: str = "/webhooks/stats", limit_s: float = 5) -> None:
    """Asks at a rate at which a wrong key is 401."""
    deadline = time.monotonic() + limit_s * PATIENCE
    while (found := await status(server, token, path)) != wanted:
        assert time.monotonic() < deadline, f"still {found}"
        await asyncio.sleep(0.15)


async def keys_command(url: str, settings: Settings, *words: str, code: int = 0) -> Any:
    """The answer of `meterbridge keys`, as JSON; of a refused command what it printed."""
    result = await keys_run(url, settings, *words)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else result.stderr


async def keys_run(url: str, settings: Settings, *words: str) -> Any:
    """Run `meterbridge keys` with `--json`."""
    environ = {
        "DATABASE_URL": url,
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "TOPIC_PREFIX": settings.topic_prefix,
        "LOG_LEVEL": "ERROR",
    }
    return await asyncio.to_thread(CliRunner().invoke, app, ["keys", *words, "--json"], env=environ)


async def test_a_key_does_what_its_scopes_say_until_it_is_revoked(server: Server, stage: Stage) -> None:
    key = await created(server, scopes=["stats:read"])
    assert await status(server, key["token"]) == 200
    assert await status(server, key["token"], "/customers/unmapped") == 403
    revoked = await server.http.delete(f"{KEYS}/{key['id']}", headers=BEARER)
    assert revoked.status_code == 200 and revoked.json()["state"] == "revoked" and "token" not in revoked.json()
    assert await status(server, key["token"]) == 401
    again = await server.http.delete(f"{KEYS}/{key['id']}", headers=BEARER)
    assert again.json()["revoked_at"] == revoked.json()["revoked_at"]
    lines = [line for line in stage.values(stage.topics.audit) if "refused" not in line["action"]]
    assert [line["action"] for line in lines] == [f"POST {KEYS}", f"DELETE {KEYS}/{{key_id}}"]
    assert [bool(line.get("before")) for line in lines] == [False, True]
    assert key["token"] not in json.dumps(lines) and lines[0]["actor"] == "master key"


async def test_no_usable_part_of_a_key_is_stored(server: Server, url: str) -> None:
    key = await created(server)
    [row] = await rows(url, "SELECT api_keys::text FROM api_keys")
    secret = key["token"].removeprefix(key["prefix"] + "_")
    assert secret not in row[0] and key["prefix"].removeprefix("mb_") in row[0]
    listed = await server.http.get(KEYS, headers=BEARER)
    assert secret not in listed.text and [one["id"] for one in listed.json()["keys"]] == [key["id"]]


async def test_a_key_created_rotated_or_revoked_elsewhere_is_known_within_seconds(
    server: Server, url: str, settings: Settings, stage: Stage
) -> None:
    """Other processes and the command line change keys too."""
    key = await keys_command(url, settings, "create", "--name", "cli", "--scope", "stats:read", "--expires", "90d")
    ends = datetime.fromisoformat(key["expires_at"])
    assert (key["state"], key["orgs"]) == ("live", None) and abs(ends - datetime.now(UTC) - timedelta(days=90)) < DAY
    narrow = await keys_command(url, settings, "create", "--name", "n", "--scope", "stats:read", "--org", "org_1")
    assert narrow["orgs"] == ["org_1"]
    await becomes(200, server, key["token"])
    new = await keys_command(url, settings, "rotate", key["id"], "--overlap", "1h")
    await becomes(200, server, new["token"])
    assert await status(server, key["token"]) == 200, "the old one lives on"
    listed = {one["id"]: one for one in (await keys_command(url, settings, "list"))["keys"]}
    assert listed[new["id"]]["rotated_from"] == key["id"]
    ends = datetime.fromisoformat(listed[key["id"]]["expires_at"])
    assert timedelta(minutes=55) < ends - datetime.now(UTC) <= timedelta(hours=1)
    assert (await keys_command(url, settings, "revoke", new["id"]))["state"] == "revoked"
    await becomes(401, server, new["token"])
    assert f"no API key with the id {'0' * 12}." in await keys_command(url, settings, "revoke", "0" * 12, code=1)
    result = await keys_command(url, settings, "revoke", new["token"], code=1)
    assert "not the id of an API key" in result and new["token"][-20:] not in result, (
        "a whole token is no id, and is not printed"
    )
    assert "revoked or expired" in await keys_command(url, settings, "rotate", new["id"], code=1)
    actions = [line["action"] for line in stage.values(stage.topics.audit)]
    assert [one for one in actions if one.startswith("keys.")] == [
        *("keys.create", "keys.create", "keys.rotate", "keys.revoke")
    ]


async def test_a_key_for_an_org_that_is_not_known_is_made_with_a_warning(url: str, settings: Settings) -> None:
    """It may be made before its org; a misspelt id would be noticed only when the key sees nothing."""
    columns = '(org_id, name, email, plan, currency, status, subscription_id, limits, periods, updated_at, "offset")'
    await rows(
        url, f"INSERT INTO organisations {columns} VALUES ('org_acme', '', '', '', '', '', '', '{{}}', '[]', now(), 0)"
    )
    words = ("create", "--name", "n", "--scope", "stats:read", "--org", "org_acme")
    assert "not known" not in (await keys_run(url, settings, *words)).stderr
    made = await keys_run(url, settings, *words, "--org", "org_acmee")
    assert (made.exit_code, json.loads(made.stdout)["orgs"]) == (0, ["org_acme", "org_acmee"])
    assert "restricted to org_acmee, an org that is not known: did you mean org_acme?" in made.stderr


async def test_a_rotated_key_is_valid_for_the_overlap_and_not_longer(server: Server) -> None:
    kept = await created(server, scopes=["*"])
    longer = await server.http.post(f"{KEYS}/{kept['id']}/rotate", json={"overlap_hours": 1}, headers=BEARER)
    assert (longer.status_code, await status(server, kept["token"], KEYS)) == (201, 200)
    old = await created(server, orgs=["org_1"], scopes=["*"])
    rotated = await server.http.post(f"{KEYS}/{old['id']}/rotate", json={"overlap_hours": 0.0003}, headers=BEARER)
    assert rotated.status_code == 201
    new = rotated.json()
    assert (new["scopes"], new["orgs"], new["rotated_from"]) == (["*"], ["org_1"], old["id"])
    assert rotated.headers["cache-control"] == "no-store"
    await becomes(401, server, old["token"], KEYS)
    assert await status(server, new["token"], KEYS) == 200
    assert await status(server, kept["token"], KEYS) == 200
    again = await server.http.post(f"{KEYS}/{old['id']}/rotate", json={}, headers=BEARER)
    assert (again.status_code, again.json()["reason"]) == (409, "key_ended")


async def test_a_key_cannot_grant_more_than_it_has(server: Server) -> None:
    maker = await created(server, scopes=["keys:write", "keys:read", "orgs:read"], orgs=["org_1", "org_2"])
    by = bearer(maker["token"])
    mine = await created(server, by=by, scopes=["orgs:read"], orgs=["org_1"])
    for wanted in (
        {"scopes": ["*"], "orgs": ["org_1"]},
        {"orgs": None},
        {"orgs": ["org_3"]},
        {"scopes": ["plans:write"]},
    ):
        refused = await created(server, 403, by, **({"scopes": ["orgs:read"], "orgs": ["org_1"]} | wanted))
        assert refused["reason"] == "exceeds_caller"
    strong = await created(server, scopes=["*"], orgs=["org_1"])
    others = await created(server, scopes=["orgs:read"], orgs=["org_3"])
    for key, expected in ((strong, 403), (others, 404)):
        rotated = await server.http.post(f"{KEYS}/{key['id']}/rotate", json={}, headers=by)
        revoked = await server.http.delete(f"{KEYS}/{key['id']}", headers=by)
        assert (rotated.status_code, revoked.status_code) == (expected, expected)
    seen = (await server.http.get(KEYS, headers=by)).json()["keys"]
    assert {one["id"] for one in seen} == {maker["id"], mine["id"], strong["id"]}
    for key in (strong, others):
        assert await status(server, key["token"], KEYS) in (200, 403)


SENSELESS: list[tuple[dict[str, Any], str]] = [
    ({"scopes": ["everything"]}, "invalid_fields"),
    ({"scopes": []}, "invalid_fields"),
    ({"name": " "}, "invalid_fields"),
    ({"name": "a\0b"}, "invalid_fields"),
    ({"orgs": []}, "invalid_fields"),
    ({"unknown": 1}, "invalid_fields"),
    ({"expires_at": "2026-01-01T00:00:00"}, "invalid_fields"),
    ({"expires_at": "2020-01-01T00:00:00Z"}, "already_expired"),
]


async def test_an_invalid_key_request_is_refused(server: Server) -> None:
    result = [(wanted, (await created(server, 422, **wanted))["reason"]) for wanted, _ in SENSELESS]
    assert result == SENSELESS


async def test_an_expired_key_is_refused(server: Server, url: str) -> None:
    ends = datetime.now(UTC) + timedelta(hours=1)
    key = await created(server, expires_at=ends.isoformat())
    assert await status(server, key["token"]) == 200
    await rows(url, "UPDATE api_keys SET expires_at = now() WHERE key_id = $1", key["id"])
    await becomes(401, server, key["token"])


async def test_the_last_use_of_a_key_is_shown(server: Server, url: str) -> None:
    key = await created(server)
    assert key["last_used_at"] is None
    await status(server, key["token"])

    await until(url, "SELECT last_used_at FROM api_keys", lambda at: at is not None)


async def test_a_change_of_a_key_is_on_disk_before_it_is_answered(server: Server, url: str) -> None:
    """The pool's other transactions do not wait for the disk: a crash would make a revoked key valid again."""
    connection = await asyncpg.connect(url)
    await connection.execute("""
        CREATE TABLE seen (setting text);
        CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
        CREATE TRIGGER look AFTER INSERT OR UPDATE OF revoked_at, expires_at ON api_keys EXECUTE FUNCTION look();
    """)
    await connection.close()
    key = await created(server)
    await server.http.post(f"{KEYS}/{key['id']}/rotate", json={}, headers=BEARER)
    await server.http.delete(f"{KEYS}/{key['id']}", headers=BEARER)
    assert await rows(url, "SELECT DISTINCT setting FROM seen") == [("on",)]


async def test_without_postgres_there_are_no_keys_and_the_master_key_works(kafka: Kafka, topic_prefix: str) -> None:
    async with running_server(settings_for(kafka, topic_prefix), ("api",)) as server:
        for answer in (
            await server.http.get(KEYS, headers=BEARER),
            await server.http.post(KEYS, json={"name": "a", "scopes": ["*"]}, headers=BEARER),
            await server.http.delete(f"{KEYS}/x", headers=BEARER),
            await server.http.post(f"{KEYS}/x/rotate", json={}, headers=BEARER),
        ):
            assert (answer.status_code, answer.json()["reason"]) == (501, "needs_postgres")
        assert await status(server, "mb_0123_guess") == 401


async def test_while_postgres_is_unavailable_a_key_is_neither_valid_nor_wrong_and_the_master_key_works(
    kafka: Kafka, topic_prefix: str
) -> None:
    away = SecretStr(f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    async with running_server(settings_for(kafka, topic_prefix, database_url=away), ("api",)) as server:
        answer = await server.http.get("/webhooks/stats", headers=bearer("mb_0123_guess"))
        assert (answer.status_code, answer.json()["reason"]) == (503, "keys_unknown")
        assert answer.headers["retry-after"]
        assert await status(server, "sk-wrong") == 401
        assert (await server.http.get("/metrics")).status_code in (200, 503)
        assert await status(server, BEARER["Authorization"].split()[1], "/customers/mappings") == 200


async def test_refused_attempts_are_in_the_audit_log_and_a_flood_of_them_is_not(server: Server, stage: Stage) -> None:
    for number in range(40):
        await status(server, f"mb_{number}_guessed-secret")

    def lines() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [line for line in stage.values(stage.topics.audit) if "refused" in line["action"]]
        return found

    await soon(lambda: len(lines()) == 10)
    assert {line["reason"] for line in lines()} <= {"unknown_token", "too_many_requests"}
    assert "guessed" not in json.dumps(stage.values(stage.topics.audit))


async def test_a_key_granted_by_another_expires_with_it(server: Server) -> None:
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    parent = await created(server, scopes=["keys:write", "stats:read"], expires_at=ends)
    child = await created(server, by=bearer(parent["token"]))
    assert child["expires_at"] == parent["expires_at"]
    shorter = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    assert (await created(server, by=bearer(parent["token"]), expires_at=shorter))["expires_at"] < parent["expires_at"]
    own = await server.http.post(f"{KEYS}/{parent['id']}/rotate", json={}, headers=bearer(parent["token"]))
    assert own.json()["expires_at"] == parent["expires_at"]


async def test_a_key_that_was_revoked_or_rotated_meanwhile_cannot_be_rotated(
    settings: Settings, server: Server, url: str
) -> None:
    """The request had read the key before, and found it valid."""
    revoked, replaced = await created(server), await created(server)
    store, now = PostgresKeys(Database(settings.database_url.get_secret_value(), 1)), datetime.now(UTC)
    for one in (revoked, replaced):
        old = await store.get(one["id"])
        assert old is not None
        if one is revoked:
            await store.revoke(old.key_id, now)
        else:
            await store.replace(expiring(old, now, timedelta(hours=1)), successor(old, "first", now)[0])
        with pytest.raises(Rejected, match="key_ended"):
            await store.replace(expiring(old, now, timedelta(hours=1)), successor(old, "second", now)[0])
    assert await rows(url, "SELECT created_by FROM api_keys WHERE rotated_from IS NOT NULL") == [("first",)]


async def test_the_number_of_keys_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_store, "MOST_LIVE", 2)
    await created(server)
    second = await created(server)
    assert (await created(server, 409))["reason"] == "too_many_keys"
    await server.http.delete(f"{KEYS}/{second['id']}", headers=BEARER)
    await created(server)
