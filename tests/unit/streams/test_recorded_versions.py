"""Data stored by an earlier version are read as that version wrote them: its topics, ledgers and spool, recorded from
its processes.
"""

from collections import defaultdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from connectors.ingest.spool_file import SpoolFile
from connectors.postgres.migrate import migrations
from schemas.ledger import Position
from schemas.topics import CATALOGUE, CHANGELOG, ENRICHED, RATES
from streams.core.metering.known_identities import NEVER
from streams.core.metering.ledger_state import LedgerState, verify
from streams.runtime.unreadable import COUNTS
from streams.state.changelog import restore
from streams.state.held_on_disk import EvictedWindowsFile
from tests.support.recorded_version.decoded import decoded, plain
from tests.support.recorded_version.recording import RECORDINGS, Recording
from tests.support.snapshots import snapshot_from

recordings = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda one: one.folder.name)


def missing(said: Any, expected: Any) -> list[str]:
    """The values that `said` lacks; it may have fields that the earlier version did not know."""
    if isinstance(expected, dict) and isinstance(said, dict):
        return [f"{name}: {wrong}" for name, its in expected.items() for wrong in missing(said.get(name), its)]
    if isinstance(expected, list) and isinstance(said, list):
        pairs = enumerate(zip_longest(said, expected))
        return [f"{number}: {wrong}" for number, (got, its) in pairs for wrong in missing(got, its)]
    return [] if said == expected else [f"{said!r} instead of {expected!r}"]


@recordings
def test_a_recording_has_every_topic_and_every_kind_of_waiting_usage(recording: Recording) -> None:
    """Otherwise the other tests would prove nothing about it."""
    assert set(recording.about["by_topic"]) >= {topic.name for topic in CATALOGUE} - {RATES.name}
    expected = [said["value"] for said in recording.expected()]
    kinds = {
        (record.key or b"")[:1] + (b"" if record.value else b"-")
        for record in recording.records()
        if record.topic == CHANGELOG.name
    }
    assert kinds >= {b"p", b"w", b"w-", b"i", b"j", b"u"}
    windows = [value for value in expected if isinstance(value, dict) and "length_us" in value]
    assert {bool(window.get("held")) for window in windows} == {True, False}
    assert {window["length_us"] for window in windows if window.get("held")} == {1_000_000, 900_000_000}
    assert recording.about["spooled"] > 0


@recordings
def test_every_record_has_the_values_that_its_version_wrote(recording: Recording) -> None:
    for record, expected in zip(recording.records(), recording.expected(), strict=True):
        said = decoded(record.topic, record.key, record.value, dict(record.headers))
        assert missing(said, expected) == [], record


@recordings
@pytest.mark.parametrize("room", [None, 3])
def test_every_ledger_is_restored_unchanged(recording: Recording, room: int | None) -> None:
    """Windows, those on disk too, identities, jobs and counters; unreadable ones would be counted."""
    images: dict[int, dict[bytes, bytes | None]] = defaultdict(dict)
    last: dict[int, dict[str, Any]] = defaultdict(dict)
    counted: dict[int, list[bytes]] = defaultdict(list)
    before = sum(COUNTS.of_role().values())
    for record, expected in zip(recording.records(), recording.expected(), strict=True):
        if record.topic == CHANGELOG.name:
            images[record.partition][record.key or b""] = record.value
            last[record.partition][expected["key"]] = expected["value"]
        elif record.topic == ENRICHED.name:
            counted[record.partition].append(bytes.fromhex(expected["value"]["identity"]))
    assert len(images) == recording.about["partitions"]
    for partition, snapshot in images.items():
        ledger = LedgerState(Position(), None if room is None else EvictedWindowsFile(room))
        restore(ledger, snapshot_from(0, snapshot), 0)
        verify(ledger)
        its = last[partition]
        assert missing(plain(ledger.position), its[b"position".hex()]) == []
        firsts = {
            int.from_bytes(bytes.fromhex(key)[1:], "big") for key, value in its.items() if key[:2] == "77" and value
        }
        held = sum(1 for key, value in its.items() if key[:2] == "77" and value and value.get("held"))
        assert ledger.held_windows() == held
        assert set(ledger.windows) <= firsts
        if room is None:
            assert set(ledger.windows) == firsts
        jobs = {bytes.fromhex(key)[1:] for key, value in its.items() if key[:2] == "6a" and value}
        assert set(ledger.jobs) == jobs
        tags = zip(counted[partition], ledger.seen.tags(counted[partition]), strict=True)
        assert [one for one, tag in tags if tag == NEVER and one not in jobs] == []
    assert sum(COUNTS.of_role().values()) == before


@recordings
def test_the_tables_of_that_version_can_be_migrated(recording: Recording) -> None:
    """A migration file that was changed after it had been applied, even in a comment, stops `meterbridge db migrate`:
    `migration_changed`.
    """
    now = {f"{one.version:04d}_{one.name}": one.checksum for one in migrations()}
    assert missing(now, recording.about["migrations"]) == []


@recordings
def test_the_spool_returns_its_records(recording: Recording, tmp_path: Path) -> None:
    file = SpoolFile(recording.spool(tmp_path / "spool.db"), 1 << 30)
    batch = file.oldest(1000, 1 << 30)
    file.close()
    assert len(batch.records) == recording.about["spooled"]
    for _, key, value, _ in batch.records:
        said = decoded("litellm.usage.raw", key.encode() if key is not None else None, value, {})
        assert said["value"]["v"] == 1
        assert said["key"]
