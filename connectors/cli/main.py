"""The command line: every command reads the settings, does one thing, and fails in one sentence.

Exit codes: 0 done, 1 it cannot be done now, 2 the command or a setting is wrong, 130 it was interrupted. This module
imports the parsers of all commands. The work of a command is imported when it runs (connectors/cli/parsers/deferred.py).
"""

from typing import Annotated

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
from connectors.cli.parsers.webhooks import webhooks
from connectors.cli.parsers.worker import worker
from connectors.cli.terminal import prepare

app = typer.Typer(
    name="meterbridge",
    help="LiteLLM's usage becomes Lago's invoices, exactly once. Settings are environment variables: docs/configuration.md",
    context_settings=GROUP_CONTEXT,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(audit, name="audit")
app.add_typer(canary_group, name="canary")
app.add_typer(topics, name="topics")
app.add_typer(credits_group, name="credits")
app.add_typer(db, name="db")
app.add_typer(dlq, name="dlq")
app.add_typer(held, name="held")
app.add_typer(ledger, name="ledger")
app.add_typer(lago, name="lago")
app.add_typer(keys, name="keys")
app.add_typer(provider_keys, name="provider-keys")
app.add_typer(export, name="export")
app.add_typer(rates, name="rates")
app.add_typer(webhooks, name="webhooks")
app.command(epilog="Example: meterbridge replay --from 2026-11-01 --to 2026-11-02 --dry-run")(replay)
app.command(epilog="Example: meterbridge backfill --source jsonl --file calls.jsonl --dry-run")(backfill)
app.command("migrate-orgs", epilog="Example: meterbridge migrate-orgs --mapping-file mappings.json --execute")(
    migrate_orgs
)
app.command("import", epilog="Example: meterbridge import mappings customers.csv --dry-run")(import_rows)
app.command(epilog="Example: meterbridge explain --request chatcmpl-123")(explain)
app.command(epilog="Example: meterbridge reconcile --lago --json")(reconcile)
app.command(epilog="Example: meterbridge recover --comment 'the disk of Kafka was lost' --yes")(recover)
app.command(epilog="Example: meterbridge doctor --config litellm/config.yaml && echo nothing loses money")(doctor)
app.command(epilog="Example: meterbridge serve --only webhooks")(serve)
app.command(epilog="Example: meterbridge worker --only meter")(worker)
app.command(epilog="Example: meterbridge demo --rate 200 --seconds 60")(demo)
app.command("lago-sandbox", epilog="Example: meterbridge lago-sandbox --port 3000 --api-key secret")(lago_sandbox)
app.command(epilog="Example: source <(meterbridge completion bash)")(completion)


def main() -> None:
    """The command `meterbridge`."""
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
    """Options before any command."""
