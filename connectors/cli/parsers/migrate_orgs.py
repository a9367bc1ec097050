"""Words, options and help of `meterbridge migrate-orgs`."""

from pathlib import Path
from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson


@deferred()
def migrate_orgs(
    mapping_file: Annotated[
        Path | None, typer.Option(help="JSON or CSV with user_id and org_id; org_name and email are optional.")
    ] = None,
    mapping_sql: Annotated[
        str | None, typer.Option(help="A file with one SELECT of the same columns, run in DATABASE_URL; - reads stdin.")
    ] = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="Make the changes. Without it they are only shown.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that all is migrated; exit code 1 if anything is missing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Move billing from users to organisations: customer, plan and mappings. Safe to repeat after any interruption; run it
    once more when the users' own subscriptions may end. Needs Kafka and Lago."""
