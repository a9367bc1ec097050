"""`meterbridge worker`: run the workers' roles, each in its own process."""

import sys
from collections.abc import Callable, Collection

import structlog

from connectors.cli.running import chosen, one_sentence, say_if_kafka_is_away, settings_of_command
from connectors.cli.sentences import exit_code_of
from connectors.config.roles import ALWAYS, ROLES
from connectors.config.settings import Settings
from connectors.processes.worker import run_worker

_log = structlog.get_logger(__name__)

_NO_LAGO_KEY = "LAGO_API_KEY is not set: Lago will refuse all events; they wait in Kafka for 30 days"


def worker(only: str | None) -> None:
    """Run `meterbridge worker`."""
    roles = chosen(only, ROLES) if only is not None else ()
    with one_sentence():
        settings = settings_of_command(asks_once=False)
        run = roles or roles_of(settings)
        warn_of_missing(settings, run)
        say_if_kafka_is_away(settings)
        sys.exit(run_worker(settings, run, _reported))


def roles_of(settings: Settings) -> tuple[str, ...]:
    """Return the roles of a deployment: all of them, but the projector only if there is Postgres."""
    return ROLES if settings.postgres_url is not None else ALWAYS


def warn_of_missing(settings: Settings, roles: Collection[str]) -> None:
    """Log a warning if one of these roles posts to Lago and there is no key: it runs, and bills nothing."""
    if settings.lago_api_key is None and {"sink", "retry"}.intersection(roles):
        _log.warning("lago_key_not_set", detail=_NO_LAGO_KEY)


def _reported(run: Callable[[], int]) -> int:
    def with_sentences() -> int:
        with one_sentence():
            return run()

    return exit_code_of(with_sentences)
