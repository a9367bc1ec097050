"""The meter compared with Quix Streams, a plain Faust agent, and a bare consumer that only decodes."""

import time
import uuid
from collections.abc import Callable
from functools import partial

from bench.contest import PEERS_PYTHON, Measured, interleaved, run
from bench.ground import PARTITIONS, Ground
from bench.records import stored
from bench.report import Row, rows_of
from schemas.topics import TopicNames
from schemas.wire import FLAT, SLP

#: Faust is slow, so it gets only the first eighth of the records.
_FAUST_SHARE = 8


def flat(ground: Ground, records: int, repeats: int) -> list[Row]:
    """Flat payloads as they are stored, with all contestants."""
    inputs, topic = _prepare(ground, FLAT, records)
    found = interleaved(
        {
            "ours": _ours(ground, inputs, records),
            "quix": partial(_quix, ground, topic, records),
            "faust": partial(_faust, ground, topic, max(1, records // _FAUST_SHARE)),
            "bare": partial(_bare, ground, topic),
        },
        repeats,
    )
    return rows_of("meter_flat", "us/record", found)


def slp(ground: Ground, records: int, repeats: int) -> list[Row]:
    """StandardLoggingPayloads as they are stored, which take longer to read."""
    inputs, topic = _prepare(ground, SLP, records)
    contestants = {"ours": _ours(ground, inputs, records), "bare": partial(_bare, ground, topic)}
    return rows_of("meter_slp", "us/record", interleaved(contestants, repeats))


def _prepare(ground: Ground, shape: str, records: int) -> tuple[str, str]:
    """The prefix of the topics with calls and mappings, and the name of the topic with the calls."""
    inputs = ground.corner()
    topic = TopicNames.with_prefix(inputs).raw
    ground.map_customers(inputs)
    ground.fill(stored(shape, records, topic, time.time_ns() // 1000))
    return inputs, topic


def _ours(ground: Ground, inputs: str, records: int) -> Callable[[], Measured]:
    return lambda: run("bench.ours.meter_job", ground.bootstrap, inputs, ground.corner(), records)


def _quix(ground: Ground, topic: str, records: int) -> Measured:
    group = _group(ground)
    return run("bench.peers.quix_job", ground.bootstrap, topic, group, "state", records, python=PEERS_PYTHON)


def _faust(ground: Ground, topic: str, records: int) -> Measured:
    return run("bench.peers.faust_job", ground.bootstrap, topic, _group(ground), PARTITIONS, records)


def _bare(ground: Ground, topic: str) -> Measured:
    return run("bench.peers.bare_job", "calls", ground.bootstrap, topic, PARTITIONS)


def _group(ground: Ground) -> str:
    return ground.name + uuid.uuid4().hex[:8]
