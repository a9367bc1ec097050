"""Errors of aiokafka (0.14.0) that would end a process or stop it without a message, mended in its classes.

A write to a connection that was just reset raises OSError in asyncio's own loops, and RuntimeError in uvloop (0.23,
`UVHandle._ensure_alive`). `AIOKafkaConnection.send` handles OSError only. A RuntimeError ends the task that meets it. If that
task refreshes a client's metadata, the client then never returns from a commit or a fetch, without a message.

A broker whose registration has expired names no broker until the controller has registered it again. A client that starts in
that time fails in `AIOKafkaClient.coordinator_lookup` with an AssertionError, which its callers take for an error in our code.
Until a broker is named, a client has only its first connection. When this connection closes, the client never connects again.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import CoordinatorNotAvailableError, KafkaConnectionError, KafkaError


def repair_aiokafka() -> None:
    """Replace the methods, once a process: for clients that exist already, too."""
    _wrap(AIOKafkaConnection, "send", _surviving)
    _wrap(AIOKafkaConnection, "_send_sasl_token", _surviving)
    _wrap(AIOKafkaClient, "coordinator_lookup", _knowing_a_broker)
    _wrap(AIOKafkaClient, "_metadata_update", _connected)


def _wrap(owner: type, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    method = getattr(owner, name)
    if not hasattr(method, "__wrapped__"):
        setattr(owner, name, wrapper(method))


def _surviving(send: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `send`: uvloop's error becomes aiokafka's own error for a broken connection."""

    @wraps(send)
    def survive(connection: AIOKafkaConnection, *args: Any, **options: Any) -> Any:
        try:
            return send(connection, *args, **options)
        except KafkaError:  # KafkaError is a RuntimeError
            raise
        except RuntimeError as error:
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"{connection!r} was closed under a request") from error

    return survive


def _knowing_a_broker(lookup: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `lookup`: without a known broker it raises the error after which its callers ask for brokers and try again."""

    @wraps(lookup)
    async def look_up(client: AIOKafkaClient, *args: Any) -> Any:
        if client.get_random_node() is None:
            raise CoordinatorNotAvailableError("Kafka has named no broker yet")
        return await lookup(client, *args)

    return look_up


def _connected(update: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `_metadata_update`: a client that knows no broker and has lost its first connection begins anew."""

    @wraps(update)
    async def update_metadata(client: AIOKafkaClient, *args: Any) -> Any:
        first = client._conns.get(("bootstrap", ConnectionGroup.DEFAULT))  # noqa: SLF001
        if client.get_random_node() is None and (first is None or not first.connected()):
            try:
                await client.bootstrap()
            except KafkaError:  # aiokafka has logged it, and its callers ask again
                return False
        return await update(client, *args)

    return update_metadata
