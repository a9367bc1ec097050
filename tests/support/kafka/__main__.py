"""Run a broker in the foreground until Ctrl-C or SIGTERM: `python -m tests.support.kafka`.

With `--fetch`, only make sure that a broker could start: fetch Maven's jars if they are needed, and make it start fast.
"""

import os
import signal
import sys

from tests.support.kafka import broker_kind, start_kafka
from tests.support.kafka.maven import make_class_archive


def _fetch() -> None:
    if broker_kind(os.environ) == "maven":
        make_class_archive()


def _run_until_signalled() -> None:
    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    broker = start_kafka(os.environ)
    try:
        print(broker.describe(), flush=True)
        print(f"KAFKA_BOOTSTRAP_SERVERS={broker.bootstrap}", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print("stopping")
    finally:
        broker.stop()


if __name__ == "__main__":
    _fetch() if "--fetch" in sys.argv else _run_until_signalled()
