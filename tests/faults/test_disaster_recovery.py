"""The steps on docs/disaster-recovery.md, executed: Kafka's disk is restored from a copy, and lost ledgers from the
other topics.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.topics import CHANGELOG
from tests.support.expanded import GHOSTS, Growing
from tests.support.kafka import MavenKafka

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

PAGE = Path(__file__).parents[2] / "docs" / "disaster-recovery.md"
_CHAPTER = re.compile(r"^## (?P<title>.+?)\n(?P<text>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```sh\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


class Page:
    """The shell blocks of the page, typed in one folder."""

    def __init__(self, folder: Path, broker: MavenKafka, growing: Growing) -> None:
        self.folder = folder
        self.environ = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "KAFKA_DATA": str(broker.folder / "data"),
            "KAFKA_BOOTSTRAP_SERVERS": growing.bootstrap,
            "KAFKA_PARTITIONS": str(growing.stage.settings.kafka_partitions),
            "TOPIC_PREFIX": growing.prefix,
        }

    def blocks(self, title: str) -> list[str]:
        """Return the blocks of a chapter."""
        chapters = {chapter["title"]: chapter["text"] for chapter in _CHAPTER.finditer(PAGE.read_text())}
        return _BLOCK.findall(chapters[title])

    def type(self, block: str) -> None:
        """Run a block, which must succeed line by line."""
        done = subprocess.run(
            ["bash", "-ec", block], cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


async def create_history(growing: Growing) -> None:
    """Create a history of billed, held, open and unread calls, some of them repeated."""
    growing.clock.go()
    growing.stage.put([*growing.calls(range(40)), *growing.calls(range(1000, 1012), GHOSTS)])
    await growing.meter(until=52, sealed=True)
    opened = growing.calls(range(40, 60))
    growing.stage.put([*opened, *opened[:5]])
    await growing.meter(until=25)
    growing.stage.put(growing.calls(range(60, 80)))


async def test_a_broker_that_lost_its_disk_continues_from_its_last_copy(broker: MavenKafka, tmp_path: Path) -> None:
    growing = Growing(broker.bootstrap, "eu.", 2, 4)
    page = Page(tmp_path, broker, growing)
    saving, restoring, looking, comparing = page.blocks("Backup and restore")
    await create_history(growing)
    broker.end()
    page.type(saving)
    shutil.rmtree(broker.folder / "data")
    (broker.folder / "data").mkdir()
    page.type(restoring)
    broker.restart()
    page.type(looking)
    await growing.each_call_is_billed_once()
    page.type(comparing)


async def test_ledgers_whose_folders_were_deleted_from_a_brokers_disk_are_rebuilt(
    broker: MavenKafka, tmp_path: Path
) -> None:
    growing = Growing(broker.bootstrap, "eu.", 2, 4)
    page = Page(tmp_path, broker, growing)
    (rebuilding,) = page.blocks("The ledgers are lost")
    await create_history(growing)
    broker.end()
    folders = list((broker.folder / "data").glob(f"eu.{CHANGELOG.name}-*"))
    assert len(folders) == 2
    for folder in folders:
        shutil.rmtree(folder)
    broker.restart()
    async with growing.stage.running("meter", growing.parts()):
        await growing.halted(2)
    assert {reason for _, _, reason in growing.stage.sensors.halted} == {"ledger_missing"}
    page.type(rebuilding)
    await growing.each_call_is_billed_once()
