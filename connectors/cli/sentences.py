"""What a command says on stderr, in one sentence."""

from typing import NoReturn

import typer

from connectors.config.settings import load_settings
from connectors.telemetry.printable import shown
from schemas.errors import ConfigurationError


def fail(sentence: str, code: int) -> NoReturn:
    """Leave with a sentence on stderr."""
    tell(f"meterbridge: {sentence}")
    raise typer.Exit(code)


def tell(sentence: str) -> None:
    """A sentence on stderr; what others chose in it cannot steer the terminal."""
    typer.echo(shown(sentence, lines=True), err=True)


def check_settings() -> None:
    """Leave with exit code 2 if a setting is wrong."""
    try:
        load_settings()
    except ConfigurationError as error:
        fail(error.detail, 2)
