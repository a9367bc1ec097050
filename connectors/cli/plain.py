"""Starts `serve` and `worker` without the library of the command line, which such a process would keep in memory for months.

It handles the arguments that a container or a service manager uses. All other arguments, including `--help` and
mistakes, go to the parsers (connectors/cli/main.py).
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final

from connectors.cli.left_out import left_out
from connectors.config.roles import SERVED

_COMMANDS: Final = {"serve": ",".join(SERVED), "worker": None}
_ONLY: Final = "--only"


def plain_command(words: Sequence[str]) -> Callable[[], int] | None:
    """Return a function that runs the command with these arguments and returns its exit code.

    Args:
        words: the command line behind the program's name.

    Returns:
        None = the arguments are not `serve` or `worker`, optionally with `--only` and its value.
    """
    if not words or words[0] not in _COMMANDS:
        return None
    command, only = words[0], _COMMANDS[words[0]]
    match words[1:]:
        case []:
            return lambda: _run(command, only)
        case [option, value] if option == _ONLY and not value.startswith("-"):
            return lambda: _run(command, value)
        case _:
            return None


def _run(command: str, only: str | None) -> int:
    _load_with_less()
    from connectors.cli.sentences import check_settings, exit_code_of

    def work() -> int:
        # A wrong setting ends the command before the libraries are loaded.
        check_settings()
        getattr(import_module(f"connectors.cli.{command}"), command)(only)
        return 0

    return exit_code_of(work)


def _load_with_less() -> None:
    """Load libraries without the modules that these processes do not use, which saves 8 MiB. Each library works without
    them.
    """
    # Log lines need no tables in colour, and Lago's client needs no command line.
    with left_out("rich", "httpx._main"):
        import httpx
        import structlog
    # aiohttp is a server here. Its client, which is loaded with it, would read the certificate authorities twice.
    with left_out("ssl"):
        import aiohttp
    del httpx, structlog, aiohttp


def run_plain() -> None:
    """Run a plain command and end this process with its exit code; return if the arguments are no plain command."""
    run = plain_command(sys.argv[1:])
    if run is not None:
        sys.exit(run())
