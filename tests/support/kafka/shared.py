"""One broker for all workers of a parallel run: it starts once, and its code is compiled once.

The main process owns the broker and starts it for the first worker that requests it. Workers have prefixes of their own for their
topics, as on a configured broker. A test that kills a broker starts its own.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Client, Listener
from pathlib import Path

from tests.support.kafka import ConfiguredKafka, Kafka, MavenKafka


@dataclass
class SharedKafka(ConfiguredKafka):
    """The broker of the main process, as a worker sees it: used, never killed."""

    description: str
    log: Path | None

    def describe(self) -> str:
        return self.description

    def last_words(self) -> str:
        """Return the end of its log, empty if it has none."""
        return self.log.read_text(errors="replace")[-3000:] if self.log else ""


class BrokerForWorkers:
    """Starts a broker when the first worker asks at `address`. `start`: starts it."""

    def __init__(self, start: Callable[[], Kafka]) -> None:
        self._start = start
        self._broker: Kafka | None = None
        self._listener = Listener(family="AF_UNIX")
        self.address = str(self._listener.address)
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            with self._listener.accept() as asked:
                try:
                    broker = self._broker = self._broker or self._start()
                except RuntimeError as error:
                    asked.send(error)
                    continue
                log = broker.log if isinstance(broker, MavenKafka) else None
                with suppress(BrokenPipeError):  # a worker that has ended meanwhile
                    asked.send(SharedKafka(broker.bootstrap, broker.describe(), log))

    def stop(self) -> None:
        """End the broker, if any; no worker runs any more."""
        if self._broker is not None:
            self._broker.stop()


def shared_kafka(address: str) -> SharedKafka:
    """Return the broker of the main process that answers at `address`.

    Raises:
        RuntimeError: it could not be started.
    """
    with Client(address, family="AF_UNIX") as asked:
        answer = asked.recv()
    if isinstance(answer, RuntimeError):
        raise answer
    assert isinstance(answer, SharedKafka)
    return answer
