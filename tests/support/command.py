"""The command line as an operator runs it: a process of its own, its answer, its exit code."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from tests.support.stage import Stage


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What `--json` printed."""
        return json.loads(self.out)


async def meterbridge(stage: Stage, *words: str, **environment: str) -> Ended:
    """Run a command on a stage's topics."""
    settings = stage.settings
    variables = {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "KAFKA_PARTITIONS": str(settings.kafka_partitions),
        "TOPIC_PREFIX": settings.topic_prefix,
        "LOG_LEVEL": "error",
        **environment,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "connectors",
        *words,
        env=variables,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return Ended(process.returncode or 0, out.decode(), err.decode())
