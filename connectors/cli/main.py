"""The command line: every command reads the settings, does one task, and reports an error in one sentence.

Exit codes: 0 done; 1 not possible now; 2 the command or a setting is wrong; 130 interrupted. This module imports the
parsers of all commands. The work of a command is imported when it runs (connectors/cli/parsers/deferred.py).
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

import typer
from typer._completion_classes import completion_init

from connectors.cli.parsers.audit import audit
from connectors.cli.parsers.backfill import backfill
from connectors.cli.parsers.canary import canary_group
from connectors.cli.parsers.completion import completion
from connectors.cli.parsers.credits import credits_group
from connectors.cli.parsers.db import db
from connectors.cli.parsers.demo import demo
from connectors.cli.parsers.dlq import dlq
from connectors.cli.parsers.doctor import doctor
from connectors.cli.parsers.explain import explain
from connectors.cli.parsers.export import export
from connectors.cli.parsers.held import held
from connectors.cli.parsers.imports import import_rows
from connectors.cli.parsers.keys import keys
from connectors.cli.parsers.lago import lago
from connectors.cli.parsers.lago_sandbox import lago_sandbox
from connectors.cli.parsers.ledger import ledger
from connectors.cli.parsers.migrate_orgs import migrate_orgs
from connectors.cli.parsers.options import GROUP_CONTEXT
from connectors.cli.parsers.provider_keys import provider_keys
from connectors.cli.parsers.rates import rates
from connectors.cli.parsers.reconcile import reconcile
from connectors.cli.parsers.recover import recover
from connectors.cli.parsers.replay import replay
from connectors.cli.parsers.serve import serve
from connectors.cli.parsers.topics import topics
from connectors.cli.parsers.unexpected import Commands, GroupParser, first_sentence
from connectors.cli.parsers.webhooks import webhooks
from connectors.cli.parsers.worker import worker
from connectors.cli.terminal import prepare

#: The panels of `meterbridge --help` and their commands, in the order of the output.
PANELS: Final = {
    "Run": ("serve", "worker", "canary", "demo", "lago-sandbox"),
    "Set up": ("topics", "db", "lago", "keys", "webhooks", "completion"),
    "Who pays and prices": ("import", "migrate-orgs", "rates", "credits", "provider-keys"),
    "Stuck usage": ("held", "dlq"),
    "Check": ("doctor", "explain", "reconcile", "audit", "export"),
    "Recover": ("recover", "backfill", "replay", "ledger"),
}
_PANEL_OF: Final = {name: panel for panel, names in PANELS.items() for name in names}


class _InPanels(GroupParser):
    """Lists its commands in the order of `PANELS`; Typer would list single commands before groups."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands."""
        return sorted(super().list_commands(ctx), key=list(_PANEL_OF).index)


app = Commands(
    name="meterbridge",
    cls=_InPanels,
    help="Bills LiteLLM's calls through Lago, each call once. Settings are environment variables: docs/configuration.md",
    context_settings=GROUP_CONTEXT,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _add_group(group: typer.Typer, name: str) -> None:
    alone = group.registered_callback  # a group that also does something by itself has its text there
    purpose = group.info.help if alone is None or alone.callback is None else alone.callback.__doc__
    app.add_typer(group, name=name, short_help=first_sentence(str(purpose)), rich_help_panel=_PANEL_OF[name])


def _add(work: Callable[..., None], name: str, epilog: str) -> None:
    app.command(name, epilog=epilog, rich_help_panel=_PANEL_OF[name])(work)


_add_group(audit, "audit")
_add_group(canary_group, "canary")
_add_group(topics, "topics")
_add_group(credits_group, "credits")
_add_group(db, "db")
_add_group(dlq, "dlq")
_add_group(held, "held")
_add_group(ledger, "ledger")
_add_group(lago, "lago")
_add_group(keys, "keys")
_add_group(provider_keys, "provider-keys")
_add_group(export, "export")
_add_group(rates, "rates")
_add_group(webhooks, "webhooks")
_add(replay, "replay", "Example: meterbridge replay --from 2026-11-01 --to 2026-11-02 --dry-run")
_add(backfill, "backfill", "Example: meterbridge backfill --source jsonl --file calls.jsonl --dry-run")
_add(migrate_orgs, "migrate-orgs", "Example: meterbridge migrate-orgs --mapping-file mappings.json --execute")
_add(import_rows, "import", "Example: meterbridge import mappings customers.csv --dry-run")
_add(explain, "explain", "Example: meterbridge explain --request chatcmpl-123")
_add(reconcile, "reconcile", "Example: meterbridge reconcile --lago --json")
_add(recover, "recover", "Example: meterbridge recover --comment 'the disk of Kafka was lost' --yes")
_add(doctor, "doctor", "Example: meterbridge doctor --config litellm/config.yaml && echo nothing loses money")
_add(serve, "serve", "Example: meterbridge serve --only webhooks")
_add(worker, "worker", "Example: meterbridge worker --only meter")
_add(demo, "demo", "Example: meterbridge demo --rate 200 --seconds 60")
_add(lago_sandbox, "lago-sandbox", "Example: meterbridge lago-sandbox --port 3000 --api-key secret")
_add(completion, "completion", "Example: source <(meterbridge completion bash)")


def main() -> None:
    """Run the command `meterbridge`."""
    prepare()
    completion_init()  # Typer calls it only if it adds its own option to install completion
    app()


def _show_version(requested: bool) -> None:
    from importlib.metadata import version

    if requested:
        typer.echo(f"meterbridge {version('meterbridge')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Handle the options before any command."""
