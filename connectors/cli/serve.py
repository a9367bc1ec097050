"""`meterbridge serve`: serve the webhooks and the management API."""

import sys

from connectors.cli.running import chosen, one_sentence, say_if_kafka_is_away, settings_of_command
from connectors.config.roles import SERVED
from connectors.processes.server import run_serve


def serve(only: str) -> None:
    """Run `meterbridge serve`."""
    parts = chosen(only, SERVED)
    with one_sentence():
        settings = settings_of_command(asks_once=False)
        say_if_kafka_is_away(settings)
        sys.exit(run_serve(settings, parts))
