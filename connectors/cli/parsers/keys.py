"""Words, options and help of `meterbridge keys`."""

from typing import Annotated

import typer

from connectors.access.scopes import EVERYTHING, SCOPES
from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, group

keys = group("API keys of the management API. Needs Postgres.")

KeyId = Annotated[str, typer.Argument(help="The id that `keys list` shows.")]


@keys.command(epilog="Example: meterbridge keys create --name dashboard --scope orgs:read --org org_acme --expires 90d")
@deferred()
def create(
    name: Annotated[str, typer.Option(help="The purpose of the key.")],
    scope: Annotated[list[str], typer.Option(help=f"One of {', '.join(SCOPES)}, or {EVERYTHING}; may be repeated.")],
    org: Annotated[
        list[str] | None, typer.Option(help="Restrict the key to this org; may be repeated. Default: all orgs.")
    ] = None,
    customer_prefix: Annotated[
        list[str] | None,
        typer.Option(
            help="The key may map customer ids that begin with this; may be repeated. A key that is restricted to orgs needs this to map new ids."
        ),
    ] = None,
    expires: Annotated[str, typer.Option(help="The key expires after this time, like 90d. Default: never.")] = "",
    as_json: AsJson = False,
) -> None:
    """Create a key and show its token; the token is shown only once."""


@keys.command("list", epilog="Example: meterbridge keys list --json")
@deferred()
def list_keys(as_json: AsJson = False) -> None:
    """List all keys without their tokens, the newest first."""


@keys.command(epilog="Example: meterbridge keys rotate 3f9a0c12d4e5 --overlap 24h")
@deferred()
def rotate(
    key_id: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old key stays valid, 720h at most.")] = "24h",
    as_json: AsJson = False,
) -> None:
    """Replace a key and show the new token once; the old key stays valid for a while."""


@keys.command(epilog="Example: meterbridge keys revoke 3f9a0c12d4e5")
@deferred()
def revoke(key_id: KeyId, as_json: AsJson = False) -> None:
    """Revoke a key: it is refused within seconds. Safe to repeat."""
