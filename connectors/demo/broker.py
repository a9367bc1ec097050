"""A Kafka broker inside this process: librdkafka's mock broker, for trials, never for real usage.

It keeps its logs in memory, the last 5 MB of each partition, and ends with the process. It has groups and transactions,
but no compaction, no topic settings and no topic ids. It does not keep the offsets that a transaction commits, so a
restarted worker reads its topics again (the ledger has its own position, and Lago recognises repeats).
"""

import asyncio
import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import cimpl

from connectors.demo.broker_relay import Relay
from schemas.errors import Unavailable
from schemas.topics import CATALOGUE, partition_count

#: The printed sentence about the data that the broker keeps.
LIMITS = "in memory, the last 5 MB of each partition"

_HOST = b"127.0.0.1"
_PRODUCER, _BROKER_ID, _COPIES = 0, 1, 1
_ERRORS_ONLY = b"3"
_RELAY_S = 5.0
#: C's signatures: https://github.com/confluentinc/librdkafka, src/rdkafka.h and src/rdkafka_mock.h.
_POINTER, _TEXT, _INT, _SIZE = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (_POINTER, []),
    "rd_kafka_conf_set": (_INT, [_POINTER, _TEXT, _TEXT, _TEXT, _SIZE]),
    "rd_kafka_new": (_POINTER, [_INT, _POINTER, _TEXT, _SIZE]),
    "rd_kafka_destroy": (None, [_POINTER]),
    "rd_kafka_mock_cluster_new": (_POINTER, [_POINTER, _INT]),
    "rd_kafka_mock_cluster_destroy": (None, [_POINTER]),
    "rd_kafka_mock_cluster_bootstraps": (_TEXT, [_POINTER]),
    "rd_kafka_mock_broker_set_host_port": (None, [_POINTER, ctypes.c_int32, _TEXT, _INT]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [_POINTER, ctypes.c_int32]),
    "rd_kafka_mock_topic_create": (_INT, [_POINTER, _TEXT, _INT, _INT]),
}


@contextmanager
def embedded_broker(partitions: int) -> Iterator[str]:
    """Start a broker with every topic of the catalogue; yield its `host:port` on loopback.

    Args:
        partitions: `KAFKA_PARTITIONS`.

    Raises:
        Unavailable: `embedded_broker`: this build of librdkafka has no mock broker.
    """
    lib = _librdkafka()
    client = _client(lib)
    cluster = lib.rd_kafka_mock_cluster_new(client, 1)
    try:
        for topic in CATALOGUE:
            _refuse(
                lib.rd_kafka_mock_topic_create(
                    cluster, topic.name.encode(), partition_count(topic, partitions), _COPIES
                )
            )
        lib.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
        with _relayed(int(lib.rd_kafka_mock_cluster_bootstraps(cluster).rpartition(b":")[2])) as port:
            lib.rd_kafka_mock_broker_set_host_port(cluster, _BROKER_ID, _HOST, port)
            yield f"{_HOST.decode()}:{port}"
    finally:
        lib.rd_kafka_mock_cluster_destroy(cluster)
        lib.rd_kafka_destroy(client)


def _librdkafka() -> Any:
    """librdkafka, which confluent-kafka has loaded already. Its symbols are found through the extension module."""
    lib = ctypes.CDLL(cimpl.__file__)
    for name, (result, arguments) in _FUNCTIONS.items():
        try:
            function = getattr(lib, name)
        except AttributeError as error:
            raise Unavailable("embedded_broker", f"this build of librdkafka has no {name}") from error
        function.restype, function.argtypes = result, arguments
    return lib


def _client(lib: Any) -> Any:
    """Return the client instance that the mock broker needs. It connects to nothing."""
    said = ctypes.create_string_buffer(512)
    conf = lib.rd_kafka_conf_new()
    _refuse(lib.rd_kafka_conf_set(conf, b"log_level", _ERRORS_ONLY, said, len(said)))
    client = lib.rd_kafka_new(_PRODUCER, conf, said, len(said))
    if not client:
        raise Unavailable("embedded_broker", said.value.decode(errors="replace"))
    return client


def _refuse(code: int) -> None:
    if code:
        raise Unavailable("embedded_broker", f"librdkafka answers {code}")


@contextmanager
def _relayed(broker_port: int) -> Iterator[int]:
    """Run a relay in a thread, so that this process never makes Kafka wait; yields its port."""
    loop = asyncio.new_event_loop()
    relay = Relay(broker_port)
    thread = threading.Thread(target=loop.run_forever, name="embedded-broker", daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(relay.start(), loop).result(_RELAY_S)
    finally:
        asyncio.run_coroutine_threadsafe(relay.stop(), loop).result(_RELAY_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
