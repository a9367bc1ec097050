"""A database of one test on the run's Postgres, and the projector's parts on it."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from connectors.kafka.admin import topic_ids
from connectors.postgres.migrate import migrate
from connectors.postgres.pool import Database
from connectors.postgres.projection import PostgresProjection
from schemas.topics import TopicNames
from streams.agents.projector import Projected, Projection
from streams.components import Components
from tests.support.eventually import PATIENCE
from tests.support.stage import RecordedSensors, Stage

#: The name of a database with our tables that others are copies of, by the URL of its server. A copy takes a fifth of the
#: CPU time of the migrations; by file, where no file waits for a disk, it takes two thirds of a copy by log.
_templates: dict[str, str] = {}


@asynccontextmanager
async def fresh_database(server_url: str, template: str = "template1") -> AsyncIterator[str]:
    """Yield the URL of a copy of `template`, by default an empty database; it is dropped afterwards, no matter who is
    still connected.
    """
    name = f"t{uuid.uuid4().hex[:12]}"
    await _copy(server_url, name, template)
    try:
        yield _url_of(server_url, name)
    finally:
        await _drop(server_url, name)


@asynccontextmanager
async def migrated_database(server_url: str) -> AsyncIterator[str]:
    """Yield a database as `fresh_database` does, with our tables in it."""
    if server_url not in _templates:
        name = f"template{uuid.uuid4().hex[:12]}"
        await _order(server_url, f"CREATE DATABASE {name}")
        await migrate(_url_of(server_url, name))
        _templates[server_url] = name
    async with fresh_database(server_url, _templates[server_url]) as url:
        yield url


async def drop_template(server_url: str) -> None:
    """Remove the template of `migrated_database` from a server that keeps running."""
    if name := _templates.pop(server_url, ""):
        await _drop(server_url, name)


def _url_of(server_url: str, name: str) -> str:
    base, _, query = server_url.partition("?")
    return base.rpartition("/")[0] + f"/{name}" + (f"?{query}" if query else "")


async def _copy(server_url: str, name: str, template: str) -> None:
    """Copy a database by its files, which older servers do by default."""
    connection = await asyncpg.connect(server_url)
    try:
        how = " STRATEGY file_copy" if connection.get_server_version().major >= 15 else ""
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}{how}")
    finally:
        await connection.close()


async def _drop(server_url: str, name: str) -> None:
    await _order(server_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def _order(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def rows(url: str, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """Return the answer to one query, over a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query, *arguments)]
    finally:
        await connection.close()


async def until(url: str, query: str, wanted: Callable[[Any], bool], limit_s: float = 20.0) -> Any:
    """Return the first value of the query that is wanted. Raises: AssertionError after `limit_s`, with the last value."""
    deadline = time.monotonic() + limit_s * PATIENCE
    connection = await asyncpg.connect(url)  # one for all attempts: connecting to Postgres takes longer than a query
    try:
        while not wanted(found := await connection.fetchval(query)):
            assert time.monotonic() < deadline, f"still {found!r} after {limit_s} s"
            await asyncio.sleep(0.02)
        return found
    finally:
        await connection.close()


@dataclass
class Watching(RecordedSensors):
    """Sensors that also keep what the projector reports."""

    rows: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    oldest: dict[tuple[str, int], int | None] = field(default_factory=dict)

    def projected(self, topic: str, projected: Projected) -> None:
        for kept, result in ((self.rows, projected.rows), (self.skipped, projected.skipped)):
            for name, count in result.items():
                kept[name] = kept.get(name, 0) + count

    def projection_failed(self, reason: str) -> None:
        self.failures[reason] = self.failures.get(reason, 0) + 1

    def projecting(self, topic: str, partition: int, oldest_ms: int | None) -> None:
        self.oldest[topic, partition] = oldest_ms


@asynccontextmanager
async def projector_parts(stage: Stage, url: str) -> AsyncIterator[Components]:
    """Parts whose projector writes to the database at `url`."""
    database = Database(url)
    projection: Projection = PostgresProjection(database, stage.topics)
    ids = topic_ids(stage.connection, [stage.topics.raw, *projected_topics(stage.topics)])
    try:
        yield stage.parts(projection=lambda: projection, topic_ids=ids, sensors=Watching())
    finally:
        database.terminate()


def projected_topics(topics: TopicNames) -> tuple[str, ...]:
    """Return the topics that the projector reads."""
    return topics.projected
