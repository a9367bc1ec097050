"""The frame of every command: reads its settings, and prints an error as one sentence.

`serve` and `worker` keep the modules that are loaded here in memory for months, so it loads no library of the command
line.
"""

import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from connectors.cli.sentences import fail, print_error
from connectors.cli.unreachable import with_address
from connectors.config.connections import kafka_connection, topic_layout
from connectors.config.misspelt_names import meant_by
from connectors.config.settings import VARIABLES, Settings, load_settings
from connectors.kafka.errors import kafka_sentence
from connectors.telemetry.logs import configure_logging
from schemas.errors import ConfigurationError, MeterbridgeError, TopicProblem, Unavailable

#: Seconds. A broker that has not accepted a connection by then counts as away.
_CONNECTS_WITHIN_S = 2.0

_log = structlog.get_logger(__name__)


def settings_of_command(*, asks_once: bool = True) -> Settings:
    """Return the settings of the environment. Configure logging, and warn about variables whose names look like
    settings but are not.

    Args:
        asks_once: silence Kafka's libraries, which would repeat an error twenty times a second. The command itself prints
            the error in one sentence.
    """
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    if asks_once:
        for library in ("librdkafka", "aiokafka"):
            logging.getLogger(library).setLevel(logging.CRITICAL)
    for name in settings.unknown:
        meant = meant_by(name, VARIABLES)
        did_you_mean = {"did_you_mean": meant} if meant else {}
        _log.warning("setting_unknown", variable=name, **did_you_mean)
    return settings


@contextmanager
def one_sentence(*expected: type[Exception]) -> Iterator[None]:
    """End the command with one sentence for an expected error. Any other error is a bug and keeps its traceback.

    Errors of Kafka's libraries are expected too: Kafka does not answer, or refuses something.

    Args:
        expected: further classes of expected errors, whose text is the sentence.
    """
    try:
        yield
    except ConfigurationError as error:
        fail(error.detail, 2)
    except TopicProblem as error:
        elsewhere = _another_prefix() if error.reason == "topic_missing" else ""
        fail(elsewhere or error.detail, 1)
    except MeterbridgeError as error:
        fail(with_address(error, load_settings), 1)
    except expected as error:
        if isinstance(error, OSError) and error.filename and error.strerror:
            fail(f"the file {str(error.filename)!r} cannot be used: {error.strerror.lower()}.", 2)
        fail(str(error), 1)
    except Exception as error:
        if sentence := kafka_sentence(error, lambda: load_settings().kafka_bootstrap_servers):
            fail(sentence, 1)
        raise


def say_if_kafka_is_away(settings: Settings) -> None:
    """Tell a person at a terminal in one sentence that no broker can be connected to. The process waits for Kafka, as it does in a
    container, where only its log says so.
    """
    if not sys.stderr.isatty():
        return
    why = ""
    for server in settings.kafka_bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECTS_WITHIN_S).close()
        except (OSError, ValueError) as error:
            why = type(error).__name__
        else:
            return
    sentence = with_address(Unavailable("kafka_unavailable", why), lambda: settings)
    print_error(f"meterbridge: {sentence} This process waits for it; Ctrl+C ends it.")


def _another_prefix() -> str:
    """Return a sentence if topics are missing because `TOPIC_PREFIX` is another one, otherwise `""`."""
    from connectors.kafka.admin import topics_elsewhere

    settings = load_settings()
    try:
        return topics_elsewhere(kafka_connection(settings), topic_layout(settings))
    except (Unavailable, TopicProblem):  # Kafka does not say more
        return ""


def chosen(only: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names in `only`, which are separated by commas, in the order of `known`."""
    names = {name.strip() for name in only.split(",")}
    if not names <= set(known):
        fail(f"--only: {only!r} is not known. Give one or several of {','.join(known)}, separated by commas.", 2)
    return tuple(name for name in known if name in names)
