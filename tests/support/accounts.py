"""The Postgres accounts of the documentation: an owner who is no superuser, and a role for each kind of process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from connectors.postgres.migrate import make_roles, migrate
from tests.support.database import fresh_database, rows

PROJECTOR, API, READER = ROLES = ("meterbridge_projector", "meterbridge_api", "meterbridge_reader")
OWNER = "meterbridge_owner"


def as_role(url: str, role: str) -> str:
    """Return the same database, with the account `role`: the cluster of the tests trusts loopback."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{role}@{rest.rpartition('@')[2]}"


@asynccontextmanager
async def owned_database(server_url: str) -> AsyncIterator[str]:
    """Yield the URL, as superuser, of a migrated database that the owner's account owns, with the roles made."""
    if "@" in server_url and ":" in server_url.partition("://")[2].rpartition("@")[0]:
        pytest.skip("the roles would need passwords on this server")
    async with fresh_database(server_url) as url:
        await rows(
            url,
            f"""DO $$ BEGIN
                IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{OWNER}') THEN CREATE ROLE {OWNER} LOGIN; END IF;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$""",
        )
        name = url.rpartition("/")[2].partition("?")[0]
        await rows(url, f"ALTER DATABASE {name} OWNER TO {OWNER}")
        await migrate(as_role(url, OWNER))
        await make_roles(url)
        yield url
