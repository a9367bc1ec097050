"""Classifies the errors of Kafka libraries: Kafka does not answer, Kafka refuses a request, or Meterbridge has a bug."""

from collections.abc import Callable, Sequence

from aiokafka.errors import (
    BrokerNotAvailableError,
    GroupCoordinatorNotAvailableError,
    IllegalArgumentError,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    KafkaUnavailableError,
    NoBrokersAvailable,
    NodeNotReadyError,
    ProducerClosed,
    RequestTimedOutError,
)
from confluent_kafka import KafkaException

from connectors.config.addresses import kafka_address
from connectors.config.unanswered import unanswered
from schemas.errors import ConfigurationError, TopicProblem

_AWAY = (
    BrokerNotAvailableError,
    GroupCoordinatorNotAvailableError,
    KafkaConnectionError,
    KafkaTimeoutError,
    KafkaUnavailableError,
    NoBrokersAvailable,
    NodeNotReadyError,
    RequestTimedOutError,
)
#: Errors of invalid requests, which point to a bug.
_OUR_FAULT = (IllegalArgumentError, IllegalStateError, ProducerClosed)


def topic_missing(name: str) -> TopicProblem:
    """Return the error of a topic that does not exist. Its sentence says what to do. Args: name: the full name."""
    return TopicProblem("topic_missing", f"Topic {name} is missing: run `meterbridge topics create`.")


def in_one(sentences: Sequence[str]) -> str:
    """Return complaints about topics as one text. The missing topics are named in one sentence, not in one each."""
    begin, end = topic_missing("|").detail.split("|")
    missing = [one.removeprefix(begin).removesuffix(end) for one in sentences if one.endswith(end)]
    if len(missing) < 2:  # one has its sentence
        return " ".join(sentences)
    others = [one for one in sentences if not one.endswith(end)]
    return " ".join([f"Topics {', '.join(missing)} {end.strip().replace('is', 'are', 1)}", *others])


def says_away(error: BaseException | None) -> bool:
    """Return whether an error of a Kafka library, or its cause, means that Kafka does not answer."""
    while error is not None:
        if isinstance(error, _AWAY):
            return True
        # librdkafka's own codes are negative: no broker answered.
        if isinstance(error, KafkaException) and error.args and error.args[0].code() < 0:
            return True
        error = error.__cause__
    return False


def kafka_sentence(error: BaseException, servers: Callable[[], str]) -> str:
    """Return an error of a Kafka library as one sentence with the address and its setting; `""` for other errors.

    Args:
        servers: returns `KAFKA_BOOTSTRAP_SERVERS`, or raises ConfigurationError.
    """
    if not isinstance(error, KafkaError | KafkaException) or isinstance(error, _OUR_FAULT):
        return ""
    try:
        place = kafka_address(servers())
    except ConfigurationError:
        return ""
    if says_away(error):
        # aiokafka repeats the address in another form.
        return unanswered("kafka_unavailable", _detail(error) if isinstance(error, KafkaException) else "", place)
    return f"Kafka at {place} refuses: {_detail(error)}"


def _detail(error: BaseException) -> str:
    if isinstance(error, KafkaException) and error.args:
        return str(error.args[0].str())
    # aiokafka's errors begin with a number and the class: "[Error 7] RequestTimedOutError: ...".
    return str(error) if type(error).__name__ in str(error) or not error.args else f"{type(error).__name__}: {error}"
