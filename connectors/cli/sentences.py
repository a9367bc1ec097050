"""Prints sentences on stderr, and ends the command."""

from typing import NoReturn

import typer

from connectors.config.settings import load_settings
from connectors.telemetry.printable import shown
from schemas.errors import ConfigurationError


def fail(sentence: str, code: int) -> NoReturn:
    """Print a sentence on stderr and end the command with the exit code `code`."""
    print_error(f"meterbridge: {sentence}")
    raise typer.Exit(code)


def print_error(sentence: str) -> None:
    """Print a sentence on stderr. Control characters in it are escaped: parts of it may come from outside."""
    typer.echo(shown(sentence, lines=True), err=True)


def check_settings() -> None:
    """End the command with exit code 2 if a setting is wrong."""
    try:
        load_settings()
    except ConfigurationError as error:
        fail(error.detail, 2)
