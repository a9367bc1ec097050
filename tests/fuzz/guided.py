"""One target with libFuzzer (atheris): its name, then libFuzzer's own arguments."""

import shlex
import sys

import atheris
import structlog

with atheris.instrument_imports(include=["connectors", "streams", "schemas"]):
    from tests.fuzz.targets import TARGETS


def _nothing(logger: object, name: str, event: object) -> object:
    """Thousands of inputs a second are refused: no log line is built for any."""
    raise structlog.DropEvent


if __name__ == "__main__":
    structlog.configure(processors=[_nothing])
    name = sys.argv.pop(1)
    # To merge, libFuzzer starts this program again: by a shell, and from its first argument.
    again = f"{shlex.quote(sys.executable)} -m {__spec__.name} {name}"
    atheris.Setup([again, *sys.argv[1:]], TARGETS[name])
    atheris.Fuzz()
