"""Words, options and help of `meterbridge import`."""

from typing import Annotated, Literal

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, Comment, Delimiter


@deferred()
def import_rows(
    what: Annotated[Literal["mappings", "customers", "subscriptions"], typer.Argument(help="The kind of the rows.")],
    file: Annotated[
        str, typer.Argument(help="CSV with a header, one JSON object per line, or a JSON array; - reads stdin.")
    ],
    kind: Annotated[
        Literal["auto", "csv", "json"],
        typer.Option("--format", help="Default: by the file's extension, otherwise JSON."),
    ] = "auto",
    delimiter: Delimiter = "",
    rate: Annotated[
        float, typer.Option(min=0.1, help="The largest number of customers or subscriptions per second.")
    ] = 10.0,
    comment: Comment = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Map LiteLLM's customers, or create customers and subscriptions in Lago. Rows that are done already are skipped, so it
    is safe to repeat. Exit code 1 if a row was refused; each refused row is named by its line."""
