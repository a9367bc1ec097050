"""Snapshots of a ledger's changelog for tests that have no topic."""

from collections.abc import Mapping

from streams.state.changelog import Snapshot


def snapshot_from(next_offset: int, latest: Mapping[bytes, bytes | None]) -> Snapshot:
    """Return the snapshot of the latest value of each key; `next_offset` is where the tail begins."""
    snapshot = Snapshot(next_offset)
    snapshot.take(latest)
    return snapshot
