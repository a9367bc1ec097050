"""Prints sentences on stderr, and ends the command.

The library of the command line is loaded only for a command that ends: `serve` and `worker` run without it.
"""

from collections.abc import Callable
from typing import NoReturn

from connectors.config.settings import load_settings
from connectors.telemetry.printable import shown
from schemas.errors import ConfigurationError


def fail(sentence: str, code: int) -> NoReturn:
    """Print a sentence on stderr and end the command with the exit code `code`."""
    from typer import Exit

    print_error(f"meterbridge: {sentence}")
    raise Exit(code)


def print_error(sentence: str) -> None:
    """Print a sentence on stderr. Control characters in it are escaped: parts of it may come from outside."""
    from typer import echo

    echo(shown(sentence, lines=True), err=True)


def exit_code_of(run: Callable[[], int]) -> int:
    """Call `run`; return its result, or the exit code if `fail` ended it."""
    try:
        return run()
    except RuntimeError as error:
        from typer import Exit  # an Exit is a RuntimeError

        if isinstance(error, Exit):
            return error.exit_code
        raise


def check_settings() -> None:
    """End the command with exit code 2 if a setting is wrong."""
    try:
        load_settings()
    except ConfigurationError as error:
        fail(error.detail, 2)
