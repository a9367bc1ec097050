"""`meterbridge serve`: serve the webhooks and the management API."""

import typer

from connectors.cli.base import chosen, one_sentence, settings_of_command
from connectors.cli.parsers.serve import SERVED
from connectors.processes.server import run_serve


def serve(only: str) -> None:
    """`meterbridge serve`."""
    parts = chosen(only, SERVED)
    with one_sentence():
        raise typer.Exit(run_serve(settings_of_command(asks_once=False), parts))
