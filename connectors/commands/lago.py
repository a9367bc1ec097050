"""`meterbridge lago`: what Lago needs before usage is billed."""

import asyncio
from typing import Annotated

import typer

from connectors.commands.base import AsJson, fail, one_sentence, say, settings_of_command
from connectors.lago.client import LagoClient, lago_http
from connectors.lago.setup import Report, Setup
from connectors.settings import Settings

lago = typer.Typer(help="Lago's metrics, plans and webhook endpoint.", no_args_is_help=True)


@lago.callback()
def _group() -> None:
    """A group although it has one command."""


@lago.command(epilog="Example: LAGO_API_KEY=... meterbridge lago setup && meterbridge doctor")
def setup(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit code 1 when anything would be.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the metrics, plans and webhook endpoint that are missing; say what differs, which makes the exit code 1."""
    with one_sentence():
        report = asyncio.run(_set_up(settings_of_command(), only_check=check))
    if as_json:
        told = {"right": not report.complaints, "created": report.created, "complaints": report.complaints}
        say(told, as_json=True, table=str)
    for complaint in report.complaints:
        typer.echo(complaint, err=True)
    if not as_json:
        typer.echo(_words(report))
    if report.complaints:
        raise typer.Exit(1)


async def _set_up(settings: Settings, *, only_check: bool) -> Report:
    if settings.lago_api_key is None:
        fail("LAGO_API_KEY is not set: Lago cannot be asked.", 2)
    async with lago_http(settings.lago_timeout, 1) as http:
        client = LagoClient(http, settings.lago_api_url, settings.lago_api_key.get_secret_value())
        return await Setup(client, settings.lago_event_code, settings.lago_webhook_url, only_check=only_check).run()


def _words(report: Report) -> str:
    made = "\n".join([f"{len(report.created)} made.", *report.created]) if report.created else "Nothing was missing."
    if report.complaints:
        return made if report.created else f"{len(report.complaints)} complaints."
    return made
