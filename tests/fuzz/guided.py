"""One target under libFuzzer (atheris): its name, then libFuzzer's own arguments."""

import sys

import atheris
import structlog

with atheris.instrument_imports(include=["connectors", "streams", "schemas"]):
    from tests.fuzz.targets import TARGETS


def _nothing(logger: object, name: str, event: object) -> object:
    """Thousands of inputs a second are refused: no log line is made of any."""
    raise structlog.DropEvent


if __name__ == "__main__":
    structlog.configure(processors=[_nothing])
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
