"""The command line: every command reads the settings, does one thing, and fails in one sentence.

Exit codes: 0 done, 1 it cannot be done now, 2 the command or a setting is wrong. What only one command needs
is imported by that command.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import structlog
import typer

from connectors.commands.backfill import backfill
from connectors.commands.db import db
from connectors.commands.dlq import dlq
from connectors.commands.doctor import doctor
from connectors.commands.explain import explain
from connectors.commands.held import held
from connectors.commands.reconcile import reconcile
from connectors.commands.replay import replay
from connectors.logs import configure_logging
from connectors.settings import Settings, load_settings
from schemas.errors import ConfigurationError, MeterbridgeError, TopicProblem

SERVED = ("webhooks", "api")
ROLES = ("meter", "sink", "retry", "project")

app = typer.Typer(
    name="meterbridge",
    help="LiteLLM's usage becomes Lago's invoices, exactly once. Settings are environment variables: docs/configuration.md",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
topics = typer.Typer(help="The Kafka topics.", no_args_is_help=True)
app.add_typer(topics, name="topics")
app.add_typer(db, name="db")
app.add_typer(dlq, name="dlq")
app.add_typer(held, name="held")
app.command(epilog="Example: meterbridge replay --from 2026-11-01 --to 2026-11-02 --dry-run")(replay)
app.command(epilog="Example: meterbridge backfill --source jsonl --file calls.jsonl --dry-run")(backfill)
app.command(epilog="Example: meterbridge explain --request chatcmpl-123")(explain)
app.command(epilog="Example: meterbridge reconcile --lago --json")(reconcile)
app.command(epilog="Example: meterbridge doctor --config litellm/config.yaml && echo nothing loses money")(doctor)


def main() -> None:
    """The command `meterbridge`."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"meterbridge {version('meterbridge')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Options before any command."""


@app.command(epilog="Example: meterbridge serve --only webhooks")
def serve(
    only: Annotated[str, typer.Option(help="Which of webhooks,api; both by default.")] = ",".join(SERVED),
) -> None:
    """Take webhooks on PORT and serve the management API on API_PORT, until SIGTERM."""
    from connectors.serve import run_serve

    parts = _chosen(only, SERVED)
    with _one_sentence():
        raise typer.Exit(run_serve(_settings(), parts))


@app.command(epilog="Example: meterbridge worker --only meter")
def worker(
    only: Annotated[
        str | None,
        typer.Option(help=f"Which of {','.join(ROLES)}, a process each; by default all, project only with Postgres."),
    ] = None,
) -> None:
    """Turn usage into Lago events (meter), send them to Lago (sink, retry), keep both in Postgres (project), until SIGTERM."""
    from connectors.worker import run_worker

    chosen = _chosen(only, ROLES) if only is not None else ()
    with _one_sentence():
        settings = _settings()
        raise typer.Exit(run_worker(settings, chosen or roles_of(settings)))


def roles_of(settings: Settings) -> tuple[str, ...]:
    """The roles a deployment has: all but the projector, and that one where there is Postgres."""
    return ROLES if settings.postgres_url is not None else ROLES[:-1]


@topics.command(epilog="Example: KAFKA_PARTITIONS=12 meterbridge topics create")
def create() -> None:
    """Create the topics that are missing; those that exist are left as they are."""
    from connectors.kafka.admin import create_topics

    with _one_sentence():
        done = create_topics(_settings(asks_once=True))
        typer.echo(f"{len(done.created)} topics created, {len(done.existed)} were there.")
        for name in done.created:
            typer.echo(name)


@topics.command(epilog="Example: meterbridge topics check && meterbridge worker")
def check() -> None:
    """Say in a sentence each what is wrong with the topics; exit code 1 when anything is."""
    from connectors.kafka.admin import check_topics

    with _one_sentence():
        complaints = check_topics(_settings(asks_once=True))
    for complaint in complaints:
        typer.echo(complaint, err=True)
    if complaints:
        raise typer.Exit(1)
    typer.echo("All topics are as they should be.")


@app.command(epilog="Example: meterbridge demo --rate 200 --seconds 60")
def demo(
    rate: Annotated[int, typer.Option(min=1, max=5000, help="Calls a second.")] = 50,
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="How long calls are sent, in seconds.")] = 20,
    lago: Annotated[
        str | None, typer.Option(help="A Lago to bill into, with LAGO_API_KEY; the sandbox by default.")
    ] = None,
) -> None:
    """Everything on this machine alone, without Docker, Java or network: sample calls become Lago events."""
    from connectors.demo import run_demo

    with _one_sentence():
        raise typer.Exit(run_demo(rate=rate, seconds=seconds, lago_url=lago))


@app.command("lago-sandbox", epilog="Example: meterbridge lago-sandbox --port 3000 --api-key secret")
def lago_sandbox(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 = any free one, which is printed.")] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    api_key: Annotated[str | None, typer.Option(help="The only key that is accepted; any by default.")] = None,
    store: Annotated[Literal["postgres", "clickhouse"], typer.Option(help="Lago's event store.")] = "postgres",
    dedup: Annotated[bool, typer.Option(help="Deduplication of the clickhouse store.")] = False,
    delay: Annotated[float, typer.Option(min=0, help="Seconds that every answer waits.")] = 0.0,
    rate_limit: Annotated[
        int | None, typer.Option(min=1, help="Event requests a second before 429, told in headers as by Lago Cloud.")
    ] = None,
    journal: Annotated[Path | None, typer.Option(help="File that keeps what was accepted across restarts.")] = None,
) -> None:
    """Serve a stand-in for Lago, for trials and tests; nothing is billed."""
    from connectors.lago.sandbox import run_sandbox

    if dedup and store != "clickhouse":
        _fail("--dedup is a setting of the clickhouse store: postgres always deduplicates.", 2)
    options = {"api_key": api_key, "store": store, "dedup": dedup, "delay_s": delay, "journal": journal}
    with _one_sentence():
        asyncio.run(run_sandbox(host, port, **options, rate_limit=rate_limit))


def _settings(*, asks_once: bool = False) -> Settings:
    """The environment's settings, with logging as they say; names that look like ours and are none are warned about.

    A command that asks Kafka once says in a sentence what went wrong: librdkafka need not say it twenty times a second.
    """
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    if asks_once:
        logging.getLogger("librdkafka").setLevel(logging.CRITICAL)
    for name in settings.unknown:
        structlog.get_logger(__name__).warning("setting_unknown", variable=name)
    return settings


def _chosen(only: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The names in `only`, in the order of `known`."""
    names = {name.strip() for name in only.split(",")}
    if not names <= set(known):
        _fail(f"--only takes {','.join(known)}, one or several separated by commas.", 2)
    return tuple(name for name in known if name in names)


@contextmanager
def _one_sentence(*expected: type[Exception]) -> Iterator[None]:
    """What goes wrong on purpose ends the command in one sentence; anything else is our bug and keeps its traceback."""
    try:
        yield
    except ConfigurationError as error:
        _fail(error.detail, 2)
    except TopicProblem as error:
        _fail(error.detail, 1)
    except MeterbridgeError as error:
        _fail(str(error), 1)
    except expected as error:
        _fail(str(error), 1)


def _fail(sentence: str, code: int) -> NoReturn:
    typer.echo(f"meterbridge: {sentence}", err=True)
    raise typer.Exit(code)
