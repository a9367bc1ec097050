"""Whether an error says that Kafka is away: nobody answers at the address, or not in time. It may pass by itself."""

from aiokafka.errors import (
    BrokerNotAvailableError,
    GroupCoordinatorNotAvailableError,
    KafkaConnectionError,
    KafkaTimeoutError,
    KafkaUnavailableError,
    NoBrokersAvailable,
    NodeNotReadyError,
    RequestTimedOutError,
)
from confluent_kafka import KafkaException

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


def says_away(error: BaseException | None) -> bool:
    """Of an error of either of Kafka's libraries, or one that such an error caused."""
    while error is not None:
        if isinstance(error, _AWAY):
            return True
        # librdkafka's own codes are negative: nobody answered, so no broker has refused anything.
        if isinstance(error, KafkaException) and error.args and error.args[0].code() < 0:
            return True
        error = error.__cause__
    return False
