"""`meterbridge demo`: run the whole product on this machine."""

import typer

from connectors.cli.running import one_sentence
from connectors.config.connections import environment_of_others, revealed
from connectors.config.settings import load_settings
from connectors.demo import run_demo


def demo(rate: int, seconds: int, lago: str | None) -> None:
    """Run `meterbridge demo`."""
    with one_sentence():
        key = revealed(load_settings().lago_api_key) if lago is not None else ""
        environ = environment_of_others()
        raise typer.Exit(run_demo(rate=rate, seconds=seconds, environ=environ, lago_url=lago, lago_key=key))
