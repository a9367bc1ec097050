"""The spool file returns all records in order until they are confirmed as stored in Kafka."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.ingest.spool_file import SPOOL_FULL, SpoolFile, SpoolTotals
from connectors.kafka.producer import Record
from schemas.errors import ConfigurationError, Unavailable

MIB = 1 << 20


def record(number: int, size: int = 10) -> Record:
    return ("raw", f"customer-{number}", str(number).encode().ljust(size), 1_000 + number)


def opened(path: Path, max_bytes: int = 64 * MIB) -> SpoolFile:
    return SpoolFile(path, max_bytes)


def drained(file: SpoolFile, at_once: int = 100) -> list[Record]:
    found = list[Record]()
    while (batch := file.oldest(at_once, MIB)).records:
        found += batch.records
        file.delete(batch.last)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def test_records_come_back_unchanged_in_order_and_only_once(path: Path) -> None:
    file = opened(path)
    put = [("raw", None, b"\0\xff", 5), ("rejected", "ü🙂", b"", -1), *map(record, range(500))]
    assert file.append([put[:1], put[1:3], put[3:]]) == [None, None, None]
    assert file.totals() == SpoolTotals(502, sum(len(value) for _, _, value, _ in put), 5)
    assert drained(file) == put
    assert file.totals() == SpoolTotals(0, 0, None)
    file.close()


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["put", "drain", "kill"]), max_size=30), st.integers(0, 1000))
def test_every_record_is_returned_until_it_is_deleted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], seed: int
) -> None:
    """`kill` continues with the file as it is, log included; records that were read and not deleted come again."""
    random, path = Random(seed), tmp_path_factory.mktemp("spool") / "spool.db"
    file, waiting, number = opened(path), list[Record](), 0
    for step in steps:
        if step == "put":
            new = [record(number + more) for more in range(random.randint(1, 5))]
            file.append([new])
            waiting, number = waiting + new, number + len(new)
        elif step == "kill":
            moved = path.with_name(f"{number}-{random.random()}.db")
            shutil.copy(path, moved)
            if (log := path.with_name(path.name + "-wal")).exists():
                shutil.copy(log, moved.with_name(moved.name + "-wal"))
            file.close()
            path, file = moved, opened(moved)
        elif (batch := file.oldest(random.randint(1, 4), MIB)).records:
            assert batch.records == waiting[: len(batch.records)]
            if random.random() < 0.7:
                file.delete(batch.last)
                waiting = waiting[len(batch.records) :]
    assert drained(file) == waiting
    file.close()


def test_append_returns_after_fsync_and_its_records_survive_the_process(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from connectors.ingest.spool_file import SpoolFile\n"
        f"file = SpoolFile(Path({str(path)!r}), {MIB})\n"
        "assert file._db.execute('PRAGMA synchronous').fetchone() == (2,)\n"
        "assert file._db.execute('PRAGMA journal_mode').fetchone() == ('wal',)\n"
        "assert file.append([[('raw', 'k', b'v', 7)]]) == [None]\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    file = opened(path)
    assert drained(file) == [("raw", "k", b"v", 7)]
    file.close()


def test_a_batch_is_bounded_in_bytes_but_contains_at_least_one_record(path: Path) -> None:
    file = opened(path)
    file.append([[record(number, 1000) for number in range(5)]])
    assert len(file.oldest(100, 2000).records) == 2
    assert len(file.oldest(100, 1).records) == 1
    batch = file.oldest(3, MIB)
    assert (len(batch.records), batch.bytes) == (3, 3000)
    file.close()


def test_a_record_that_does_not_fit_does_not_affect_the_others(path: Path) -> None:
    file = opened(path, MIB)
    small, large = [record(1)], [record(2, 2 * MIB)]
    before, failed, after = file.append([small, large, small])
    assert (before, after) == (None, None)
    assert failed is not None
    assert failed.reason == SPOOL_FULL
    assert drained(file) == small * 2
    file.close()


def test_a_full_file_accepts_records_again_once_it_is_drained(path: Path) -> None:
    file = opened(path, MIB)
    for _ in range(3):
        put = 0
        while file.append([[record(put, 1000)]]) == [None]:
            put += 1
        assert path.stat().st_size <= MIB
        assert put > 700
        assert len(drained(file)) == put
    file.close()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 kB; only root may mount one."""
    if os.geteuid():
        pytest.skip("only root may mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_full_disk_loses_nothing_and_can_be_drained_even_if_a_delete_finds_no_room(
    full_disk: Path, restarted: bool
) -> None:
    file = opened(full_disk / "spool.db")
    put = list[Record]()
    while file.append([[record(len(put), 1000)]]) == [None]:
        put.append(record(len(put), 1000))
    if restarted:
        file.close()
        file = opened(full_disk / "spool.db")
    assert drained(file, at_once=7) == put
    assert file.append([[record(0, 1000)]]) == [None]
    assert drained(file) == [record(0, 1000)]
    file.close()


def test_a_file_that_could_not_be_recreated_is_recreated_later(path: Path) -> None:
    """Simulated: a spool whose delete fails is drained, and its folder accepts no new file for a while."""
    file = opened(path)
    file.append([[record(1)]])
    file._db.execute("CREATE TRIGGER no_room BEFORE DELETE ON spool BEGIN SELECT RAISE(ABORT, 'no room'); END")
    batch = file.oldest(1, MIB)
    hidden = path.parent.rename(path.parent.with_name("hidden"))
    with pytest.raises(Exception, match="spool_failed"):
        file.delete(batch.last)
    [failed] = file.append([[record(2)]])
    assert failed is not None
    hidden.rename(path.parent)
    assert file.append([[record(3)]]) == [None]
    assert drained(file) == [record(3)]
    file.close()


def test_one_process_has_the_file_and_the_next_gets_it_when_the_first_has_ended(path: Path) -> None:
    file = opened(path)
    code = f"from pathlib import Path; from connectors.ingest.spool_file import SpoolFile; SpoolFile(Path({str(path)!r}), {MIB})"
    command = [sys.executable, "-c", code]
    for _ in range(2):  # a new file, and one that was there
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "in use by another process" in result.stderr
        file.close()
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
        file = opened(path)
    file.close()


def test_an_unusable_file_is_reported_before_any_record_is_accepted(tmp_path: Path) -> None:
    junk, later = tmp_path / "junk", tmp_path / "later"
    junk.write_bytes(b"not a database, " * 100)
    database = sqlite3.connect(later)
    database.execute("PRAGMA user_version = 2")
    database.close()
    for wrong, why in (
        (junk, "not a spool"),
        (later, "another version"),
        (tmp_path, "folder"),
        (tmp_path / "no" / "x", "folder"),
    ):
        with pytest.raises(ConfigurationError, match=why) as caught:
            opened(wrong)
        assert caught.value.reason == "SPOOL_PATH"
    assert not (tmp_path / "no").exists()


def test_no_other_user_of_the_machine_can_read_the_file(path: Path) -> None:
    """Also if an older release created the file; the log file next to it too."""
    path.touch(mode=0o644)
    path.chmod(0o644)
    before = os.umask(0)
    try:
        file = opened(path)
        assert file.append([[record(1)]]) == [None]
        rights = {
            one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir() if one.name.startswith(path.name)
        }
    finally:
        os.umask(before)
    assert len(rights) == 2
    assert set(rights.values()) == {0o600}


def overwritten(path: Path, *numbers: int) -> int:
    """Overwrite the pages of the closed spool that have these records; return how many records of 500 can then not be read."""
    data = bytearray(path.read_bytes())
    for number in numbers:
        page = (
            data.rindex(f"customer-{number}{number} ".encode()) // 4096 * 4096
        )  # its key and the beginning of its value
        data[page : page + 4096] = b"\xa5" * 4096
    path.write_bytes(data)
    copied = path.with_name("copied")
    shutil.copy(path, copied)
    database, lost = sqlite3.connect(copied), 0
    for number in range(1, 501):
        try:
            database.execute("SELECT value FROM spool WHERE id = ?", (number,)).fetchone()
        except sqlite3.DatabaseError:
            lost += 1
    database.close()
    for left in path.parent.glob("copied*"):
        left.unlink()
    return lost


@pytest.mark.parametrize("damaged", [[0], [200], [100, 300], [499], [50, 499]])
@pytest.mark.parametrize("restarted", [False, True])
def test_what_can_be_read_of_a_damaged_file_is_returned_and_the_file_is_kept(
    path: Path, damaged: list[int], restarted: bool
) -> None:
    """In an earlier version the spool sent nothing more after a page that it could not read."""
    put = [record(number, 200) for number in range(500)]
    file = opened(path)
    file.append([put])
    file.close()
    lost = overwritten(path, *damaged)
    assert 0 < lost < 100
    file = opened(path)
    if restarted:
        assert file.totals().records == 500 - lost
    found = drained(file, at_once=7)
    assert len(found) == 500 - lost
    assert found == [one for one in put if one in found]
    [kept] = path.parent.glob("spool.db.damaged-*")
    assert b"\xa5" * 4096 in kept.read_bytes()
    assert file.append([[record(1)]]) == [None]
    assert drained(file) == [record(1)]
    file.close()


def test_a_damaged_file_takes_records_and_tells_what_is_left(path: Path) -> None:
    file = opened(path)
    file.append([[record(number, 200) for number in range(500)]])
    file.close()
    lost = overwritten(path, 499)  # new records belong beside the last one
    file = opened(path)
    assert file.append([[record(500, 200)]]) == [None]
    assert file.salvaged == SpoolTotals(500 - lost, 200 * (500 - lost), 1_000)
    assert drained(file)[-1] == record(500, 200)
    file.close()


def test_without_room_for_a_copy_a_damaged_file_stays_as_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = opened(path)
    file.append([[record(number, 200) for number in range(500)]])
    file.close()
    overwritten(path, 0)
    before, file = path.read_bytes(), opened(path)

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("connectors.ingest.spool_salvage.os.link", no_room)
    for _ in range(2):
        with pytest.raises(Unavailable, match="spool_failed"):
            file.oldest(10, MIB)
    file.close()
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["spool.db"]
