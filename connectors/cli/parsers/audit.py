"""Words, options and help of `meterbridge audit`."""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, group

audit = group("The audit log: it names who changed how usage is billed.")


@audit.command(epilog="Example: meterbridge audit verify --head 1842:9f0c...")
@deferred()
def verify(
    head: Annotated[
        str,
        typer.Option(help="A head that was printed earlier. With it, the check also finds missing lines at the end."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Check the chain of hashes and, with Postgres, the table against the topic.

    Exit code 0: nothing is wrong; 1: a line or a row is changed, missing, inserted, moved or forged; the first one is named.
    """
