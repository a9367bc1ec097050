"""`meterbridge migrate-orgs` like an operator runs it: with Kafka and the sandbox, with rows from a file or from
Postgres.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.support.command import Ended, meterbridge
from tests.support.database import fresh_database
from tests.support.kafka import Kafka
from tests.support.sandbox import KEY, Lago, lago_sandbox
from tests.support.stage import Stage

ROWS = [
    {"user_id": "user_1", "org_id": "org_1", "org_name": "Acme", "email": "a@acme.io"},
    {"user_id": "user_2", "org_id": "org_2"},
    {"user_id": "user_9", "org_id": "org_9"},
]


@dataclass
class TwoUsers:
    """Two users in Lago who each pay for a LiteLLM customer."""

    stage: Stage
    lago: Lago
    folder: Path

    async def run(self, *words: str, **environment: str) -> Ended:
        variables = {"LAGO_API_URL": self.lago.url, "LAGO_API_KEY": KEY, "MAPPING_DELAY_SECONDS": "1", **environment}
        return await meterbridge(self.stage, "migrate-orgs", *words, **variables)

    def file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def mapping_of(self, customer: str) -> list[str]:
        """The orgs of its versions, from the latest record in the topic."""
        found = [
            one for one in self.stage.values(self.stage.topics.customers) if one["litellm_customer_id"] == customer
        ]
        return [version["lago_customer_id"] for version in found[-1]["versions"]]

    def org(self, org_id: str) -> dict[str, Any]:
        """The org's record."""
        found: dict[str, Any] = [one for one in self.stage.values(self.stage.topics.orgs) if one["org_id"] == org_id][
            -1
        ]
        return found

    async def subscriptions(self) -> list[tuple[str, str]]:
        """All running subscriptions: (customer, plan)."""
        listed = (await self.lago.get("/subscriptions")).json()["subscriptions"]
        return sorted((one["external_customer_id"], one["plan_code"]) for one in listed)


@pytest.fixture
async def town(kafka: Kafka, topic_prefix: str, tmp_path: Path) -> AsyncIterator[TwoUsers]:
    stage = Stage(kafka.bootstrap, topic_prefix)
    async with lago_sandbox() as lago:
        await lago.plan("starter", 1900)
        for user, customer in (("user_1", "alice"), ("user_2", "bob")):
            await lago.subscribe(f"of {user}", user, "starter")
            stage.map(customer, user, f"of {user}")
        yield TwoUsers(stage, lago, tmp_path)


def states(ended: Ended) -> dict[str, tuple[str, str]]:
    return {one["user_id"]: (one["state"], one["reason"]) for one in ended.json["customers"]}


async def test_a_dry_run_then_a_run_then_a_check(town: TwoUsers) -> None:
    file = town.file("mappings.json", json.dumps(ROWS[:2]))
    said = await town.run("--mapping-file", file, "--json")
    assert (said.code, said.json["mode"], states(said)) == (
        0,
        "dry_run",
        {"user_1": ("would", ""), "user_2": ("would", "")},
    )
    assert await town.subscriptions() == [("user_1", "starter"), ("user_2", "starter")]
    missing = await town.run("--mapping-file", file, "--verify", "--json")
    assert (missing.code, states(missing)["user_1"]) == (1, ("missing", ""))

    done = await town.run("--mapping-file", file, "--execute", "--json")
    assert (done.code, done.err, done.json["complete"]) == (0, "", True)
    assert states(done) == {"user_1": ("migrated", ""), "user_2": ("migrated", "")}
    assert await town.subscriptions() == [(one, "starter") for one in ("org_1", "org_2", "user_1", "user_2")]
    assert town.mapping_of("alice") == ["user_1", "org_1"]
    org = town.org("org_1")
    assert [period["external_id"] for period in org["periods"]] == [org["subscription_id"]]
    audit = [line for line in town.stage.values(town.stage.topics.audit) if line["action"] == "orgs.migrate"]
    assert [line["target"]["user"] for line in audit] == ["user_1", "user_2"]

    verified = await town.run("--mapping-file", file, "--verify", "--json")
    assert (verified.code, verified.json["counts"]) == (0, {"already": 2})
    assert "late usage may come" in verified.json["customers"][0]["to_end"][0]["wait"]
    again = await town.run("--mapping-file", file, "--execute")
    assert (again.code, "2 already" in again.out) == (0, True)


async def test_two_concurrent_runs_create_one_of_each(town: TwoUsers) -> None:
    file = town.file("mappings.json", json.dumps(ROWS[:2]))
    both = await asyncio.gather(*(town.run("--mapping-file", file, "--execute", "--json") for _ in range(2)))
    last = await town.run("--mapping-file", file, "--execute", "--json")
    assert (last.code, {state for state, _ in states(last).values()} <= {"already", "migrated"}) == (0, True), both
    assert await town.subscriptions() == [(one, "starter") for one in ("org_1", "org_2", "user_1", "user_2")]
    assert (await town.run("--mapping-file", file, "--verify")).code == 0


async def test_csv_has_the_same_columns_and_skipped_rows_are_named(town: TwoUsers) -> None:
    rows = ["user_id,org_id,org_name,email", "user_1,org_1,Acme,a@acme.io", "user_9,org_9,,", ",org_3,,"]
    file = town.file("mappings.csv", "\n".join(rows))
    done = await town.run("--mapping-file", file, "--execute")
    assert done.code == 0
    assert "1 migrated, 2 skipped" in done.out
    assert "unknown_customer" in done.out
    assert (await town.run("--mapping-file", file, "--verify")).code == 1


async def test_rows_may_come_from_a_read_only_query(town: TwoUsers, postgres_url: str) -> None:
    async with fresh_database(postgres_url) as url:
        database = await asyncpg.connect(url)
        try:
            await database.execute("CREATE TABLE people (id text, company text)")
            await database.execute("INSERT INTO people VALUES ('user_1', 'org_1')")
            query = town.file("q.sql", "SELECT id AS user_id, company AS org_id FROM people")
            said = await town.run("--mapping-sql", query, "--json", DATABASE_URL=url)
            assert states(said) == {"user_1": ("would", "")}
            for wrong in (
                "DELETE FROM people RETURNING id AS user_id, company AS org_id",
                "SELECT 1; COMMIT; DROP TABLE people",
                "SELECT id FROM people",
                "SELECT nothing",
            ):
                refused = await town.run("--mapping-sql", town.file("w.sql", wrong), "--execute", DATABASE_URL=url)
                assert (refused.code, "bad_mapping_sql" in refused.err) == (1, True), (wrong, refused.err)
            assert await database.fetchval("SELECT count(*) FROM people") == 1
        finally:
            await database.close()


@pytest.mark.parametrize("text", ["user,org\nuser_1,org_1", "[1]", "{", "", "\xff\xfe"])
async def test_a_malformed_file_gives_one_sentence(town: TwoUsers, text: str) -> None:
    path = town.folder / "f"
    path.write_bytes(text.encode("latin-1"))
    refused = await town.run("--mapping-file", str(path), "--execute")
    assert (refused.code, "bad_mapping_file" in refused.err, len(refused.err.splitlines())) == (1, True, 1)


async def test_a_missing_requirement_is_named(town: TwoUsers) -> None:
    file = town.file("mappings.json", json.dumps(ROWS[:1]))
    for words, variables, code, sentence in (
        ((), {}, 2, "give either --mapping-file or --mapping-sql"),
        (("--mapping-file", file, "--mapping-sql", file), {}, 2, "give either --mapping-file or --mapping-sql"),
        (("--mapping-file", file, "--execute", "--verify"), {}, 2, "--execute or --verify, not both"),
        (("--mapping-file", file), {"LAGO_API_KEY": ""}, 2, "LAGO_API_KEY is not set"),
        (("--mapping-sql", file), {}, 2, "DATABASE_URL or POSTGRES_HOST must be set"),
        (("--mapping-file", "/nowhere"), {}, 2, "no such file"),
        (
            ("--mapping-file", file),
            {"TOPIC_PREFIX": "none."},
            1,
            "and none of TOPIC_PREFIX=none., which is set now: correct TOPIC_PREFIX",
        ),
    ):
        ended = await town.run(*words, **variables)
        assert (ended.code, sentence in ended.err) == (code, True), ended.err
