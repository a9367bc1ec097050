"""Words, options and help of `meterbridge backfill`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, Comment, Delimiter, DryRun, TrustLogFrom


@deferred()
def backfill(
    source: Annotated[Literal["litellm-db", "jsonl", "csv"], typer.Option(help="Where the calls are read from.")],
    file: Annotated[str | None, typer.Option(help="For jsonl and csv: the file to read; - reads stdin.")] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="For litellm-db: calls that started at or after.", show_default="24h")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="For litellm-db: calls that started before.", show_default="5m")
    ] = None,
    overlap: Annotated[
        str | None, typer.Option(help="For litellm-db: start this long before the checkpoint.", show_default="1h")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="For litellm-db: file that stores how far it has read.")
    ] = None,
    shape: Annotated[
        Literal["flat", "slp", "integration"], typer.Option(help="Shape of a call whose shape cannot be detected.")
    ] = "flat",
    trust_log_from: TrustLogFrom = None,
    delimiter: Delimiter = "",
    patience: Annotated[str, typer.Option(help="How long to wait for the meter and the projector.")] = "60s",
    comment: Comment = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Bill calls that never arrived, or had no price when they were counted. Each call is looked up in the usage log
    first, so nothing is billed twice. Needs Postgres and a running meter and projector. --dry-run shows calls, tokens
    and amounts by customer. Exit code 1 if rows were refused or calls were counted at another cost.
    """
