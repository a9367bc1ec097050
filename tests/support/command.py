"""Runs the command line as an operator does, in a separate process, and returns its output and exit code."""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support import warm
from tests.support.eventually import PATIENCE
from tests.support.stage import Stage

_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The output of `--json`."""
        return json.loads(self.out)


async def meterbridge(stage: Stage, *words: str, **environment: str) -> Ended:
    """Run a command on a stage's topics."""
    return await ended(environment_of(stage, **{"LOG_LEVEL": "error", **environment}), *words)


def environment_of(stage: Stage, **more: str) -> dict[str, str]:
    """Return the whole environment of a process on a stage's topics."""
    settings = stage.settings
    return {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "KAFKA_PARTITIONS": str(settings.kafka_partitions),
        "TOPIC_PREFIX": settings.topic_prefix,
        **more,
    }


async def ended(
    environ: Mapping[str, str], *words: str, limit_s: float = _LIMIT_S, module: str = "connectors"
) -> Ended:
    """Run a command with this environment alone, by default one of `meterbridge`.

    Raises:
        TimeoutError: it took longer than `limit_s`.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        command = [sys.executable, "-m", module, *words]
        process = await asyncio.to_thread(warm.start, command, environ, out.fileno(), err.fileno())
        deadline = time.monotonic() + limit_s * PATIENCE
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{words} takes longer than {limit_s} s")
                await asyncio.sleep(0.01)
        finally:
            process.kill()
        result = []
        for file in (out, err):
            file.seek(0)
            result.append(file.read().decode())
        return Ended(process.wait(), *result)
