"""Words, options and help of `meterbridge db`."""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, Comment, DryRun, group

db = group("The tables in Postgres. Needs Postgres.")


@db.command(epilog="Example: meterbridge db migrate --check && meterbridge worker --only project")
@deferred()
def migrate(
    check: Annotated[bool, typer.Option(help="Change nothing; exit code 1 when migrations are pending.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create or upgrade the tables for this version. Safe to repeat, and to run in several places at once."""


@db.command(epilog="Example: meterbridge db init --test-data")
@deferred()
def init(
    test_data: Annotated[bool, typer.Option("--test-data", help="Also add four prepaid test users.")] = False,
    reset: Annotated[
        bool,
        typer.Option("--reset", help="DESTRUCTIVE: first drop our tables with all credits, keys and usage in them."),
    ] = False,
    yes: Annotated[str, typer.Option(help="The database's name, to confirm --reset without a question.")] = "",
    as_json: AsJson = False,
) -> None:
    """Create or upgrade the tables, and verify them: all or nothing. Without --reset nothing is lost; safe to repeat."""


@db.command(epilog="Example: meterbridge db migrate && meterbridge db roles")
@deferred()
def roles(as_json: AsJson = False) -> None:
    """Make meterbridge_projector, meterbridge_api and meterbridge_reader, with only the rights that they need."""


@db.command(epilog="Example: meterbridge db prune --older-than 90d --dry-run")
@deferred()
def prune(
    older_than: Annotated[str, typer.Option(help="Delete only rows that are older, like 90d.")],
    comment: Comment = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Delete old calls by whole months, and old settled events, refusals and attempts. The audit log is kept."""


@db.command(epilog="Example: meterbridge db unprojected --json")
@deferred()
def unprojected(
    limit: Annotated[int, typer.Option(min=1, help="The largest number of records; the latest come first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List records without a row, because they cannot be read or Postgres refused them. They stay in their topics."""
