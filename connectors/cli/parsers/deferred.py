"""Imports a command's work and its libraries only when the command runs, because loading all libraries takes a second.

A parser is a function that has only a docstring, in `connectors/cli/parsers/NAME.py`. Its work is the function of the
same name and parameters in `connectors/cli/NAME.py`.
"""

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import ParamSpec

P = ParamSpec("P")


def deferred(*, reads_settings: bool = True) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Make a command of a parser. The command of a group, whose parameter `context` is Typer's, does nothing if a
    command of the group follows.

    Args:
        reads_settings: check the settings first; a wrong setting ends the command before the libraries are loaded.
    """

    def command_of(parser: Callable[P, None]) -> Callable[P, None]:
        @wraps(parser)
        def command(*args: P.args, **kwargs: P.kwargs) -> None:
            if getattr(kwargs.get("context"), "invoked_subcommand", None) is not None:
                return
            if reads_settings:
                from connectors.cli.sentences import check_settings

                check_settings()
            work_of(parser)(*args, **kwargs)

        return command

    return command_of


def work_of(parser: Callable[P, None]) -> Callable[P, None]:
    """Import the module of the work, and return the function of the parser's name."""
    work: Callable[P, None] = getattr(import_module(parser.__module__.replace(".parsers.", ".")), parser.__name__)
    return work
