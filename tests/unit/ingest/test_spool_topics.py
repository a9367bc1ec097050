"""A spool that was filled under another TOPIC_PREFIX is refused: its records would reach a topic that no role reads."""

from pathlib import Path

import pytest

from connectors.ingest.spool import Spool
from schemas.errors import ConfigurationError

OLD, NEW = ("old.raw", "old.rejected"), ("new.raw", "new.rejected")
MIB = 1 << 20


@pytest.fixture
async def left_spool(tmp_path: Path) -> Path:
    """The spool of an ingress that was killed: two calls, one rejection."""
    path = tmp_path / "spool.db"
    spool = await Spool.at(path, MIB, OLD)
    await spool.put([("old.raw", "c", b"{}", 1), ("old.raw", "c", b"{}", 2), ("old.rejected", None, b"{}", 3)])
    await spool.close()
    return path


async def test_a_spool_of_other_topics_is_refused_with_a_description_of_its_content_and_nothing_is_lost(
    left_spool: Path,
) -> None:
    for _ in range(2):
        with pytest.raises(ConfigurationError) as refused:
            await Spool.at(left_spool, MIB, NEW)
        result = str(refused.value)
        assert "2 records for the topic old.raw, 1 record for the topic old.rejected" in result
        assert "TOPIC_PREFIX" in result and "meterbridge_spool_records" in result
    spool = await Spool.at(left_spool, MIB, OLD)
    batch = await spool.oldest(10, MIB)
    assert [topic for topic, *_ in batch.records] == ["old.raw", "old.raw", "old.rejected"]
    await spool.delete(batch)
    await spool.close()
    empty = await Spool.at(left_spool, MIB, NEW)
    assert empty.records == 0
    await empty.close()
