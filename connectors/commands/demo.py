"""`meterbridge demo`: everything on this machine."""

import typer

from connectors.commands.base import one_sentence
from connectors.demo import run_demo


def demo(rate: int, seconds: int, lago: str | None) -> None:
    """`meterbridge demo`."""
    with one_sentence():
        raise typer.Exit(run_demo(rate=rate, seconds=seconds, lago_url=lago))
