"""A role of the product as a process of its own, with the topics of a stage."""

import os
import sys
import time
from pathlib import Path

from tests.faults.procs import Process
from tests.support.stage import Stage


def stage_process(name: str, words: str, stage: Stage, folder: Path, event: str, **environ: str) -> Process:
    """Start `meterbridge WORDS`; `event`: the event in its log that shows that it is up; `environ`: further variables."""
    settings = {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": stage.settings.kafka_bootstrap_servers,
        "KAFKA_PARTITIONS": str(stage.settings.kafka_partitions),
        "TOPIC_PREFIX": stage.settings.topic_prefix,
        "METRICS_PORT": "0",
    }
    command = [sys.executable, "-m", "connectors", *words.split()]
    return Process(
        name, command, settings | environ, folder, time.monotonic, lambda said: f'"event": "{event}"' in said
    )
