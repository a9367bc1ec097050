"""`meterbridge db`: the tables in Postgres."""

import asyncio
from typing import Annotated

import typer

from connectors.commands.base import AsJson, one_sentence, say, settings_of_command
from connectors.postgres.migrate import migrate as bring
from connectors.postgres.migrate import pending
from connectors.postgres.pool import postgres_url

db = typer.Typer(help="The tables in Postgres, which keep what can be queried.", no_args_is_help=True)


@db.command(epilog="Example: meterbridge db migrate --check && meterbridge worker --only project")
def migrate(
    check: Annotated[bool, typer.Option(help="Change nothing; exit code 1 when migrations are pending.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the tables to this version. Safe to repeat, and to run from several places at once."""
    with one_sentence():
        url = postgres_url(settings_of_command())
        found = [f"{one.version:04d}_{one.name}" for one in asyncio.run(pending(url) if check else bring(url))]
    answer = {"applied": [] if check else found, "pending": found if check else []}
    say(answer, as_json=as_json, table=lambda: _told(found, "pending" if check else "applied"))
    if check and found:
        raise typer.Exit(1)


def _told(found: list[str], what: str) -> str:
    if not found:
        return "The tables are up to date."
    return "\n".join([f"{len(found)} migrations {what}.", *found])
