"""`meterbridge completion`: prints Typer's own script. Typer's option that installs it would edit the user's files."""

from typing import Literal

import typer
from typer._completion_shared import get_completion_script

#: Typer looks for this variable in `meterbridge`: the program's name in capitals.
_VARIABLE = "_METERBRIDGE_COMPLETE"


def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Run `meterbridge completion`."""
    typer.echo(get_completion_script(prog_name="meterbridge", complete_var=_VARIABLE, shell=shell))
