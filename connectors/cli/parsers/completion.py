"""Words, options and help of `meterbridge completion`."""

from typing import Annotated, Literal

import typer

from connectors.cli.parsers.deferred import deferred


@deferred(reads_settings=False)
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell to complete commands in.")],
) -> None:
    """Print a script that completes commands and options in your shell. Load it in your shell's start file, for bash in
    ~/.bashrc.
    """
