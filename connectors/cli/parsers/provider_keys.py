"""Words, options and help of `meterbridge provider-keys`, and of `meterbridge keys rotate-secret`, which is the same
command.
"""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.keys import keys
from connectors.cli.parsers.options import AsJson, group

provider_keys = group("Users' own keys of LLM providers, which calls can use. They are no API keys. Needs Postgres.")


@provider_keys.command("list", epilog="Example: meterbridge provider-keys list --user ada --json")
@deferred()
def list_provider_keys(
    user: Annotated[str, typer.Option(help="Only this user's keys. Default: the keys of all users.")] = "",
    as_json: AsJson = False,
) -> None:
    """List provider keys, masked, the newest first, with the date by which to replace each key."""


@provider_keys.command("revoke", epilog="Example: meterbridge provider-keys revoke pk_3f9a0c12d4e51b07")
@deferred()
def revoke_provider_key(
    key_id: Annotated[str, typer.Argument(help="The id that `provider-keys list` shows.")], as_json: AsJson = False
) -> None:
    """Revoke a user's provider key and erase it: the next call does not get it. Safe to repeat."""


@provider_keys.command("rotate-secret", epilog="Example: meterbridge provider-keys rotate-secret")
@keys.command("rotate-secret", epilog="Example: meterbridge keys rotate-secret")
@deferred()
def rotate_secret(as_json: AsJson = False) -> None:
    """Encrypt all users' provider keys under the first secret of PROVIDER_KEYS_SECRET. API keys have no secret. Safe to repeat."""
