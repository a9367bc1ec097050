"""LiteLLM's own database for a trial: its tables from its migrations, and the rows that its proxy writes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
from aiohttp import web

_COLUMNS = """
SELECT column_name, data_type FROM information_schema.columns
WHERE table_name = 'LiteLLM_SpendLogs' AND table_schema = 'public'
"""
_INSERT = """
INSERT INTO "LiteLLM_SpendLogs" ({columns})
SELECT {columns} FROM jsonb_populate_record(NULL::"LiteLLM_SpendLogs", $1::jsonb)
ON CONFLICT DO NOTHING
"""


class SpendLogs:
    """The table `LiteLLM_SpendLogs` in a database of its own."""

    def __init__(self, pool: Any, columns: dict[str, str]) -> None:
        self._pool = pool
        self._columns = columns

    @classmethod
    async def create(cls, url: str, migrations: Sequence[Path]) -> "SpendLogs":
        """Create all of LiteLLM's tables in the empty database at `url`."""
        pool = await asyncpg.create_pool(url, min_size=0, max_size=4)
        for migration in migrations:
            await pool.execute(migration.read_text())
        return cls(pool, dict(await pool.fetch(_COLUMNS)))

    async def insert(self, row: dict[str, Any]) -> bool:
        """Store a row like the proxy writes it; False if one with this `request_id` exists, which stays."""
        known = {name: self._value(name, value) for name, value in row.items() if name in self._columns}
        columns = ", ".join(f'"{name}"' for name in known)
        done = await self._pool.execute(_INSERT.format(columns=columns), json.dumps(known))
        return str(done).endswith(" 1")

    def _value(self, name: str, value: Any) -> Any:
        """JSON columns arrive as text."""
        return json.loads(value) if self._columns[name] == "jsonb" and isinstance(value, str) else value

    async def rows(self) -> list[tuple[str, str, float]]:
        """(request id, call type, spend) of every row with a cost."""
        query = 'SELECT request_id, call_type, spend FROM "LiteLLM_SpendLogs" WHERE spend > 0 ORDER BY "startTime"'
        return [tuple(row) for row in await self._pool.fetch(query)]

    def route(self) -> web.RouteDef:
        """`POST /spend`: one row; `{"new": false}` if it existed."""
        return web.post("/spend", self._post)

    async def _post(self, request: web.Request) -> web.Response:
        return web.json_response({"new": await self.insert(await request.json())})

    async def away(self) -> None:
        """Close every connection: the server is about to stop. The next row opens another."""
        await self._pool.expire_connections()

    async def close(self) -> None:
        """Close every connection permanently."""
        self._pool.terminate()
