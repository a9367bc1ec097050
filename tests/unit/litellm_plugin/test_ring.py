"""The ring keeps every record that it did not drop with a count, also across processes, and never blocks the event
loop.
"""

import asyncio
import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from meterbridge_litellm.counts import Counts
from meterbridge_litellm.delivery import Post
from meterbridge_litellm.posting import Posted
from meterbridge_litellm.ring import Ring
from meterbridge_litellm.settings import SEGMENT_BYTES, PluginSettings
from tests.support.eventually import PATIENCE

VICTIM = """
import asyncio, os, signal, sys
from meterbridge_litellm.counts import Counts
from meterbridge_litellm.posting import Posted
from meterbridge_litellm.ring import Ring
from meterbridge_litellm.settings import PluginSettings as Settings

async def main():
    ring = Ring(Settings(url="http://x", ring_path=sys.argv[1], token="t", answer_after=sys.argv[2]), Counts(), lambda records, failures: Posted('away'))
    number = 0
    while True:
        kept = [asyncio.get_running_loop().create_future() for _ in range(7)]
        for each in kept:
            ring.append(b'{"id":"%d-%d"}' % (os.getpid(), number), each)
            number += 1
        await asyncio.wait(kept)
        print(number, flush=True)  # what a client was told

asyncio.run(main())
"""


def settings(folder: Path, **given: object) -> PluginSettings:
    return PluginSettings(url="http://x", ring_path=str(folder), token="t", flush_seconds=0.01, stop_seconds=2, **given)  # type: ignore[arg-type]


class Meterbridge:
    """Accepts batches, or none while it is unavailable."""

    def __init__(self, *, away: bool = False) -> None:
        self.records: list[bytes] = []
        self.away = away

    def __call__(self, records: Sequence[bytes], failures: int) -> Posted:
        if self.away:
            return Posted("away")
        self.records += records
        return Posted()


@pytest.fixture
def rings() -> Iterator[Callable[..., Ring]]:
    """Creates rings and closes them at the end."""
    created: list[Ring] = []

    def ring(folder: Path, post: Post, counts: Counts | None = None, **given: object) -> Ring:
        created.append(Ring(settings(folder, **given), counts or Counts(), post))
        return created[-1]

    yield ring
    for each in created:
        each.close()


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10 * PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("after", ["write", "fsync"])
async def test_a_record_is_in_a_file_when_its_future_is_done(
    tmp_path: Path, rings: Callable[..., Ring], after: str
) -> None:
    ring = rings(tmp_path, Meterbridge(away=True), answer_after=after)
    for number in range(20):
        kept = asyncio.get_running_loop().create_future()
        ring.append(b'{"id":"%d"}' % number, kept)
        assert await asyncio.wait_for(kept, 5 * PATIENCE)
        [segment] = segments(tmp_path)
        assert b'{"id":"%d"}' % number in segment.read_bytes()


def test_only_the_owner_can_read_the_files(tmp_path: Path, rings: Callable[..., Ring]) -> None:
    ring = rings(tmp_path / "ring", Meterbridge(away=True))
    ring.append(b"{}")
    assert (tmp_path / "ring").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "ring").iterdir()} == {0o600}
    assert len(segments(tmp_path / "ring")) == 1


@pytest.mark.parametrize("after", ["write", "fsync"])
def test_a_disk_that_does_not_make_a_new_segment_durable_delays_no_append(
    rings: Callable[..., Ring], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """`append` runs in the proxy's event loop: all of its requests would wait for the disk."""
    begun, ended = threading.Event(), threading.Event()

    def slow(_folder: Path) -> None:
        begun.set()
        ended.wait(600)

    monkeypatch.setattr("meterbridge_litellm.ring.sync_folder", slow)
    ring = rings(tmp_path, Meterbridge(), answer_after=after)
    appending = [threading.Thread(target=ring.append, args=(b"{}",), daemon=True) for _ in range(2)]
    try:
        appending[0].start()
        assert begun.wait(10 * PATIENCE)
        appending[1].start()
        for each in appending:
            each.join(5 * PATIENCE)
        assert not any(each.is_alive() for each in appending)
    finally:
        ended.set()


async def test_all_waiting_records_share_one_fsync(
    tmp_path: Path, rings: Callable[..., Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    fsyncs, ended = list[int](), list[int]()
    gate = threading.Event()

    def slow(file: int) -> None:
        fsyncs.append(file)
        gate.wait(10 * PATIENCE)
        ended.append(file)
        gate.set()  # an append that waits is found once, and not a hundred times

    monkeypatch.setattr(os, "fdatasync", slow)
    ring = rings(tmp_path, Meterbridge(), answer_after="fsync")
    ring.append(b"{}")
    until(lambda: len(fsyncs) == 1)
    futures = [asyncio.get_running_loop().create_future() for _ in range(100)]
    for future in futures:
        ring.append(b"{}", future)
    assert not ended, "append waits for no disk"
    assert not any(future.done() for future in futures)
    gate.set()
    assert all(await asyncio.gather(*futures))
    assert len(fsyncs) == 2


async def test_a_disk_that_hangs_delays_no_answer_and_nothing_is_posted_before_it_is_durable(
    tmp_path: Path, rings: Callable[..., Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, there = threading.Event(), Meterbridge()
    monkeypatch.setattr(os, "fdatasync", lambda _file: gate.wait(10 * PATIENCE))
    ring = rings(tmp_path, there, answer_after="write")
    kept = asyncio.get_running_loop().create_future()
    ring.append(b"{}", kept)
    assert kept.done() and kept.result(), "the kernel has it"
    await asyncio.sleep(0.2)
    assert there.records == []
    gate.set()
    until(lambda: there.records == [b"{}"])


def test_all_records_are_posted_in_order_and_their_files_deleted(tmp_path: Path, rings: Callable[..., Ring]) -> None:
    there, counts = Meterbridge(), Counts()
    ring = rings(tmp_path, there, counts)
    sent = [json.dumps({"id": number, "pad": "x" * 3000}).encode() for number in range(2000)]
    for record in sent:
        ring.append(record)
    until(lambda: len(there.records) == len(sent))
    assert there.records == sent
    assert counts.all() == {"kept": 2000}
    until(lambda: len(list(tmp_path.glob("*.seg"))) == 1)


def test_records_that_a_process_left_are_posted_by_the_next(tmp_path: Path, rings: Callable[..., Ring]) -> None:
    ring = rings(tmp_path, Meterbridge(away=True))
    for number in range(10):
        ring.append(b'{"id":"%d"}' % number)
    ring.close()
    ring.forget()  # as the kernel does when a process ends
    there = Meterbridge()
    rings(tmp_path, there)
    until(lambda: len(there.records) == 10)
    until(lambda: len(list(tmp_path.glob("*.lane"))) == 1)


@pytest.mark.parametrize("after", ["write", "fsync"])
def test_a_kill_at_any_moment_loses_no_confirmed_record(tmp_path: Path, rings: Callable[..., Ring], after: str) -> None:
    """Two processes at a time in one folder, killed while they write."""
    confirmed: dict[str, int] = {}
    for number in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", VICTIM, str(tmp_path), after], stdout=subprocess.PIPE, text=True
        ) as victim:
            assert victim.stdout is not None
            for _ in range(number * 3 + 1):
                confirmed[str(victim.pid)] = int(victim.stdout.readline())
            victim.kill()
            result = victim.stdout.read().split("\n")
        whole = [line for line in result[:-1] if line]
        confirmed[str(victim.pid)] = int(whole[-1]) if whole else confirmed[str(victim.pid)]
    there = Meterbridge()
    rings(tmp_path, there)
    expected = {f"{pid}-{number}" for pid, count in confirmed.items() for number in range(count)}
    until(lambda: expected <= {json.loads(record)["id"] for record in there.records})
    until(lambda: len(list(tmp_path.glob("*.lane"))) == 1)
    assert len({*there.records}) == len(there.records), "none twice: what was posted is noted"


def test_two_processes_share_a_folder_and_each_record_is_posted_once(
    tmp_path: Path, rings: Callable[..., Ring]
) -> None:
    one, other = Meterbridge(), Meterbridge()
    first, second = rings(tmp_path, one), rings(tmp_path, other)
    for number in range(200):
        (first, second)[number % 2].append(b'{"id":"%d"}' % number)
    until(lambda: len(one.records) + len(other.records) == 200)
    assert len({*one.records, *other.records}) == 200


async def test_a_full_ring_drops_and_counts_records_and_accepts_them_again_when_there_is_room(
    tmp_path: Path, rings: Callable[..., Ring], caplog: pytest.LogCaptureFixture
) -> None:
    there, counts = Meterbridge(away=True), Counts()
    ring = rings(tmp_path, there, counts, ring_max_bytes=4 * SEGMENT_BYTES)
    record, loop = b'{"pad":"%b"}' % (b"x" * 100_000), asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(60)]
    for future in futures:
        ring.append(record, future)
    kept = await asyncio.gather(*futures)
    assert 35 < sum(kept) < 45
    assert counts.all()["shed"] == kept.count(False)
    assert "usage_shed" in caplog.text and "xxx" not in caplog.text
    there.away = False
    until(lambda: len(there.records) == sum(kept))
    until(lambda: len(list(tmp_path.glob("*.seg"))) == 1)
    again = loop.create_future()
    ring.append(record, again)
    assert await asyncio.wait_for(again, 5 * PATIENCE)


@pytest.mark.parametrize("after", ["write", "fsync"])
async def test_a_full_disk_drops_records_that_do_not_fit_and_keeps_those_that_do(
    tmp_path: Path, rings: Callable[..., Ring], monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """The kernel accepts a part of a write, then nothing: that part must not stand before the next record."""
    real, counts, there = os.write, Counts(), Meterbridge(away=True)

    def narrow(file: int, data: bytes) -> int:
        room = 250 - os.fstat(file).st_size
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[:room])

    ring = rings(tmp_path, there, counts, answer_after=after)
    monkeypatch.setattr(os, "write", narrow)
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(20)]
    for number, future in enumerate(futures):
        ring.append(b'{"id":"%02d"}' % number, future)
    kept = await asyncio.gather(*futures)
    assert 0 < sum(kept) < 20
    monkeypatch.setattr(os, "write", real)
    again = loop.create_future()
    ring.append(b'{"id":"again"}', again)
    assert await asyncio.wait_for(again, 5 * PATIENCE)
    there.away = False
    until(lambda: len(there.records) == sum(kept) + 1)
    assert counts.all() == {"kept": sum(kept) + 1, "shed": 20 - sum(kept)}, "and nothing is damaged"


def test_a_record_after_the_close_is_still_kept(tmp_path: Path, rings: Callable[..., Ring]) -> None:
    """LiteLLM logs its last calls while the process ends, after the plugin was closed."""
    ring = rings(tmp_path, Meterbridge())
    ring.close()
    ring.append(b'{"id":"last"}')
    assert any(b"last" in path.read_bytes() for path in tmp_path.glob("*.seg"))


def test_closing_posts_the_remaining_records(tmp_path: Path, rings: Callable[..., Ring]) -> None:
    there = Meterbridge()
    ring = rings(tmp_path, there)
    for number in range(1200):
        ring.append(b'{"id":"%d"}' % number)
    ring.close()
    assert len(there.records) == 1200


def test_a_name_that_could_not_be_made_durable_is_tried_again_with_the_next_record(
    rings: Callable[..., Ring], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier it was tried once: after a power cut the whole segment could be gone."""
    tried: list[Path] = []

    def sync(folder: Path) -> None:
        tried.append(folder)
        if len(tried) == 1:
            raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("meterbridge_litellm.ring.sync_folder", sync)
    there, counts = Meterbridge(), Counts()
    ring = rings(tmp_path, there, counts)
    for number in range(3):
        ring.append(b'{"id":%d}' % number)
        until(lambda: len(there.records) == number + 1)  # noqa: B023  # it is called at once
    assert len(tried) == 2


@pytest.mark.parametrize("after", ["write", "fsync"])
async def test_a_proxy_without_free_file_descriptors_makes_its_records_durable(
    rings: Callable[..., Ring], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """Clients open as many connections as they like. Earlier the writer ended by the error, and no record was posted any more."""
    there = Meterbridge()
    ring = rings(tmp_path, there, answer_after=after)
    ring.append(b'{"id":0}')
    until(lambda: len(there.records) == 1)

    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "dup", none_left)
    kept = asyncio.get_running_loop().create_future()
    ring.append(b'{"id":1}', kept)
    assert await asyncio.wait_for(kept, 5 * PATIENCE)
    until(lambda: len(there.records) == 2)
