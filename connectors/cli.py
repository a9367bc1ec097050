"""The command line: every command reads the settings, does one thing, and fails in one sentence.

Exit codes: 0 done, 1 it cannot be done now, 2 the command or a setting is wrong, 130 it was interrupted. What only one command needs
is imported by that command.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import typer

from connectors.commands.audit import audit
from connectors.commands.backfill import backfill
from connectors.commands.base import fail, one_sentence, settings_of_command
from connectors.commands.db import db
from connectors.commands.dlq import dlq
from connectors.commands.doctor import doctor
from connectors.commands.explain import explain
from connectors.commands.held import held
from connectors.commands.imports import import_rows
from connectors.commands.keys import keys
from connectors.commands.lago import lago as lago_group
from connectors.commands.ledger import ledger
from connectors.commands.migrate_orgs import migrate_orgs
from connectors.commands.reconcile import reconcile
from connectors.commands.replay import replay
from connectors.commands.topics import topics
from connectors.settings import Settings, load_settings
from connectors.terminal import prepare

SERVED = ("webhooks", "api")
ROLES = ("meter", "sink", "retry", "project")

app = typer.Typer(
    name="meterbridge",
    help="LiteLLM's usage becomes Lago's invoices, exactly once. Settings are environment variables: docs/configuration.md",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(audit, name="audit")
app.add_typer(topics, name="topics")
app.add_typer(db, name="db")
app.add_typer(dlq, name="dlq")
app.add_typer(held, name="held")
app.add_typer(ledger, name="ledger")
app.add_typer(lago_group, name="lago")
app.add_typer(keys, name="keys")
app.command(epilog="Example: meterbridge replay --from 2026-11-01 --to 2026-11-02 --dry-run")(replay)
app.command(epilog="Example: meterbridge backfill --source jsonl --file calls.jsonl --dry-run")(backfill)
app.command("migrate-orgs", epilog="Example: meterbridge migrate-orgs --mapping-file mappings.json --execute")(
    migrate_orgs
)
app.command("import", epilog="Example: meterbridge import mappings customers.csv --dry-run")(import_rows)
app.command(epilog="Example: meterbridge explain --request chatcmpl-123")(explain)
app.command(epilog="Example: meterbridge reconcile --lago --json")(reconcile)
app.command(epilog="Example: meterbridge doctor --config litellm/config.yaml && echo nothing loses money")(doctor)


def main() -> None:
    """The command `meterbridge`."""
    prepare()
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"meterbridge {version('meterbridge')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before any command."""


@app.command(epilog="Example: meterbridge serve --only webhooks")
def serve(
    only: Annotated[str, typer.Option(help="Serve only this part: webhooks or api. Default: both.")] = ",".join(SERVED),
) -> None:
    """Take webhooks on PORT and serve the management API on API_PORT until SIGTERM."""
    from connectors.serve import run_serve

    parts = _chosen(only, SERVED)
    with one_sentence():
        raise typer.Exit(run_serve(settings_of_command(asks_once=False), parts))


@app.command(epilog="Example: meterbridge worker --only meter")
def worker(
    only: Annotated[
        str | None,
        typer.Option(
            help=f"Run only these roles of {','.join(ROLES)}, one process each. Default: all; project only with Postgres."
        ),
    ] = None,
) -> None:
    """Run the workers until SIGTERM: meter makes Lago events of usage, sink and retry send them, project fills Postgres."""
    from connectors.worker import run_worker

    chosen = _chosen(only, ROLES) if only is not None else ()
    with one_sentence():
        settings = settings_of_command(asks_once=False)
        raise typer.Exit(run_worker(settings, chosen or roles_of(settings)))


def roles_of(settings: Settings) -> tuple[str, ...]:
    """The roles a deployment has: all but the projector, and that one where there is Postgres."""
    return ROLES if settings.postgres_url is not None else ROLES[:-1]


@app.command(epilog="Example: meterbridge demo --rate 200 --seconds 60")
def demo(
    rate: Annotated[int, typer.Option(min=1, max=5000, help="Calls per second.")] = 50,
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="How long to send calls, in seconds.")] = 20,
    lago: Annotated[
        str | None, typer.Option(help="URL of the Lago to bill to; its key is LAGO_API_KEY. Default: the sandbox.")
    ] = None,
) -> None:
    """Run everything on this machine with sample calls, without Docker, Java or network."""
    from connectors.connections import environment_of_others, revealed
    from connectors.demo import run_demo

    with one_sentence():
        key = revealed(load_settings().lago_api_key) if lago is not None else ""
        environ = environment_of_others()
        raise typer.Exit(run_demo(rate=rate, seconds=seconds, environ=environ, lago_url=lago, lago_key=key))


@app.command("lago-sandbox", epilog="Example: meterbridge lago-sandbox --port 3000 --api-key secret")
def lago_sandbox(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free port and prints it.")
    ] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    api_key: Annotated[str | None, typer.Option(help="The API key to accept. Default: any key.")] = None,
    store: Annotated[
        Literal["postgres", "clickhouse"], typer.Option(help="The event store of Lago to imitate.")
    ] = "postgres",
    dedup: Annotated[bool, typer.Option(help="Turn on deduplication in the clickhouse store.")] = False,
    delay: Annotated[float, typer.Option(min=0, help="Delay each answer by this many seconds.")] = 0.0,
    rate_limit: Annotated[
        int | None, typer.Option(min=1, help="Event requests per second before a 429, with the headers of Lago Cloud.")
    ] = None,
    journal: Annotated[Path | None, typer.Option(help="File that keeps accepted data across restarts.")] = None,
    webhook_secret: Annotated[
        str | None, typer.Option(help="Secret that signs its webhooks; set LAGO_WEBHOOK_SECRET to the same value.")
    ] = None,
) -> None:
    """Serve a stand-in for Lago, for trials and tests; it sends no real bills."""
    from connectors.lago.sandbox import run_sandbox
    from connectors.stopping import run_until_told

    if dedup and store != "clickhouse":
        fail("--dedup is a setting of the clickhouse store: postgres always deduplicates.", 2)
    options = {"api_key": api_key, "store": store, "dedup": dedup, "delay_s": delay, "journal": journal}
    if webhook_secret is not None:
        options["webhook_secret"] = webhook_secret
    with one_sentence():
        run_until_told(lambda word: run_sandbox(word, host, port, **options, rate_limit=rate_limit))


def _chosen(only: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The names in `only`, in the order of `known`."""
    names = {name.strip() for name in only.split(",")}
    if not names <= set(known):
        fail(f"--only takes {','.join(known)}, one or several separated by commas.", 2)
    return tuple(name for name in known if name in names)
