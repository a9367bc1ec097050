"""Delivery by the plugin: a record, a lane or a file that cannot be posted does not block the others, and no record
disappears without a count.
"""

import errno
import itertools
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from meterbridge_litellm import delivery
from meterbridge_litellm.__main__ import main, repost, status
from meterbridge_litellm.aside import Aside, files_of, kept_in, records_of
from meterbridge_litellm.counts import Counts
from meterbridge_litellm.delivery import Post, RingDelivery
from meterbridge_litellm.lane import Lane, RingPosition, frame
from meterbridge_litellm.posting import Posted, Poster
from meterbridge_litellm.settings import PluginSettings

RECORDS = [b'{"litellm_call_id":"%d"}' % number for number in range(8)]


class Ingress:
    """An ingress that refuses a body that contains one of some texts, and is unavailable after a number of requests."""

    def __init__(self, status: int, *hostile: bytes) -> None:
        self.status, self.hostile, self.taken, self.lasts = status, hostile, list[bytes](), 10_000

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.lasts -= 1
        if self.lasts < 0:
            raise httpx.ConnectError("away")
        if any(text in request.content for text in self.hostile):
            return httpx.Response(self.status)
        self.taken += [json.dumps(one, separators=(",", ":")).encode() for one in json.loads(request.content) if one]
        return httpx.Response(202, json={"status": "accepted"})


def lane_of(folder: Path, name: str, records: Sequence[bytes]) -> Lane:
    lane = Lane(folder, name)
    lane.segment(1).write_bytes(b"".join(map(frame, records)))
    return lane


def delivering(
    folder: Path, counts: Counts, records: Sequence[bytes], post: Post | Ingress, **given: int
) -> RingDelivery:
    """Delivery of the lane `own` with these records."""
    settings = PluginSettings(url="http://x", ring_path=str(folder), token="t", **given)
    if isinstance(post, Ingress):
        post = Poster(settings, counts, httpx.Client(transport=httpx.MockTransport(post))).post
    return RingDelivery(settings, counts, lane_of(folder, "own", records), post)


def drained(posting: RingDelivery, folder: Path, times: int = 20) -> None:
    """Post without pauses until nothing is left."""
    end = RingPosition(1, sum(path.stat().st_size for path in folder.glob("own.*.seg")))
    for _ in range(times):
        posting.hurry()
        posting.post_once(end)


@pytest.mark.parametrize("status", [413, 400])
def test_a_record_that_the_ingress_refuses_is_kept_apart_and_all_others_are_posted(
    tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    counts, ingress = Counts(), Ingress(status, b'"3"', b'"5"')
    drained(delivering(tmp_path, counts, RECORDS, ingress), tmp_path)
    assert sorted(ingress.taken) == [RECORDS[number] for number in (0, 1, 2, 4, 6, 7)]
    [file] = files_of(tmp_path)
    assert [*records_of(file)] == [RECORDS[3], RECORDS[5]]
    assert file.stat().st_mode & 0o777 == 0o600
    assert (counts.all()["set_aside"], counts.all()["posted"]) == (2, 6)
    assert "usage_set_aside" in caplog.text and f'"http_{status}": 2' in caplog.text
    assert "litellm_call_id" not in caplog.text


def test_a_batch_in_which_every_record_is_refused_does_not_stop_delivery(tmp_path: Path) -> None:
    """600 refused records at the front: more than one batch."""
    hostile = [b'{"large":"%d"}' % number for number in range(600)]
    counts, ingress = Counts(), Ingress(413, b"large")
    drained(delivering(tmp_path, counts, [*hostile, *RECORDS], ingress), tmp_path)
    assert sorted(ingress.taken) == RECORDS
    assert kept_in(tmp_path)[:2] == (1, 600)


def test_refused_records_are_kept_apart_only_after_their_whole_batch_was_posted(tmp_path: Path) -> None:
    """The batch is posted again as a whole, so a part of it would be kept twice; a record that the ingress has is never
    kept as refused.
    """
    counts, ingress = Counts(), Ingress(413, b'"0"')
    posting = delivering(tmp_path, counts, RECORDS, ingress)
    ingress.lasts = 5  # requests: 8, 4, 2 records, the first one, the second one
    posting.post_once(RingPosition(1, 10_000))
    assert ingress.taken == [RECORDS[1]] and not files_of(tmp_path)
    ingress.lasts = 1000
    drained(posting, tmp_path)
    assert {*ingress.taken} == {*RECORDS[1:]}
    assert [*records_of(files_of(tmp_path)[0])] == [RECORDS[0]]


def test_refused_records_beyond_the_limit_are_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counts, ingress = Counts(), Ingress(413, b'"3"', b'"5"', b'"7"')
    posting = delivering(tmp_path, counts, RECORDS, ingress, aside_max_bytes=2 * len(RECORDS[0]) + 2)
    drained(posting, tmp_path)
    assert counts.all() == {"posted": 5, "set_aside": 2, "shed": 1}
    assert "aside_full" in caplog.text


def test_a_refused_record_stays_in_the_ring_while_the_disk_does_not_accept_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, ingress = Counts(), Ingress(413, b'"3"')
    posting = delivering(tmp_path, counts, RECORDS, ingress)

    def full(_aside: object, _records: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(delivery.Aside, "keep", full)
        drained(posting, tmp_path, 3)
    assert "set_aside" not in counts.all()
    drained(posting, tmp_path)
    assert counts.all()["set_aside"] == 1


def test_a_lane_that_cannot_be_posted_does_not_block_the_others(tmp_path: Path) -> None:
    """The process's own lane is the first of all."""
    counts, taken = Counts(), list[bytes]()

    def post(records: Sequence[bytes], _failures: int) -> Posted:
        if b"own" in records[0]:
            return Posted("http_503")
        taken.extend(records)
        return Posted()

    for number, name in enumerate(("left-1", "left-2")):
        lane_of(tmp_path, name, RECORDS[number * 4 : number * 4 + 4]).close()
    posting = delivering(tmp_path, counts, [b'{"own":1}'], post)
    assert posting.post_once(RingPosition(1, 100))
    assert sorted(taken) == RECORDS


@pytest.mark.parametrize("error", [OSError(errno.EIO, "unreadable"), KeyError("ours"), RecursionError()])
def test_a_lane_that_cannot_be_read_does_not_block_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    counts, ingress = Counts(), Ingress(413)
    lane_of(tmp_path, "left", RECORDS).close()
    real = Lane.read

    def read(lane: Lane, most: int, end: RingPosition | None = None) -> object:
        if lane.name == "own":
            raise error
        return real(lane, most, end)

    monkeypatch.setattr(Lane, "read", read)
    delivering(tmp_path, counts, [b"{}"], ingress).post_once(RingPosition(1, 100))
    assert ingress.taken == RECORDS


@pytest.mark.parametrize("note", [b"many words", b"1 two", b"\xff\xfe \xff", b"9", b"1 2 3"])
def test_with_a_damaged_posted_position_all_records_are_posted_again(tmp_path: Path, note: bytes) -> None:
    lane_of(tmp_path, "left", RECORDS).close()
    (tmp_path / "left.lane").write_bytes(note)
    (tmp_path / "left.strange.seg").write_bytes(b"")
    ingress = Ingress(413)
    delivering(tmp_path, Counts(), [], ingress).post_once(RingPosition(1, 0))
    assert ingress.taken == RECORDS


def test_pauses_grow_while_the_ingress_does_not_answer_and_its_retry_after_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = [1000.0], [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    tries: list[float] = []

    def post(_records: Sequence[bytes], failures: int) -> Posted:
        assert failures == len(tries)
        tries.append(now[0])
        return Posted("ConnectError", (), asked[0])

    posting = delivering(tmp_path, Counts(), RECORDS, post)
    while len(tries) < 12:
        posting.post_once(RingPosition(1, 10_000))
        now[0] += 0.05
    gaps = [after - before for before, after in itertools.pairwise(tries)]
    assert gaps[0] <= 0.25 and 15 <= gaps[-1] <= 30.1
    asked[0], before = 45.0, len(tries)
    while len(tries) < before + 2:
        posting.post_once(RingPosition(1, 10_000))
        now[0] += 0.05
    assert tries[-1] - tries[-2] >= 45


def test_a_command_posts_refused_records_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, ingress = Counts(), Ingress(413, b'"3"', b'"5"')
    drained(delivering(tmp_path, counts, RECORDS, ingress), tmp_path)
    assert (status(tmp_path)["aside_records"], status(tmp_path)["aside_files"]) == (2, 1)
    ingress.hostile = (b'"5"',)
    settings = PluginSettings(url="http://x", ring_path=str(tmp_path), token="t")
    poster = Poster(settings, counts, httpx.Client(transport=httpx.MockTransport(ingress)))
    assert repost(tmp_path, poster) == 1
    assert RECORDS[3] in ingress.taken and RECORDS[5] not in ingress.taken
    assert status(tmp_path)["aside_records"] == 2, "a file is deleted as a whole; posted twice, a call counts once"
    ingress.hostile = ()
    assert repost(tmp_path, poster) == 2
    assert status(tmp_path) == {**status(tmp_path), "aside_records": 0, "aside_files": 0, "aside_bytes": 0}
    monkeypatch.setattr(
        "os.environ", {"METERBRIDGE_URL": "http://u", "METERBRIDGE_RING_PATH": str(tmp_path), "METERBRIDGE_TOKEN": "t"}
    )
    assert main("status") == 0


def test_a_record_that_could_not_be_posted_again_is_kept_beside_later_ones(tmp_path: Path) -> None:
    ingress, aside = Ingress(413, b'"5"'), Aside(tmp_path, "1-a", 1 << 20)
    settings = PluginSettings(url="http://x", ring_path=str(tmp_path), token="t")
    poster = Poster(settings, Counts(), httpx.Client(transport=httpx.MockTransport(ingress)))
    aside.keep([RECORDS[5]])
    assert repost(tmp_path, poster) == 0
    aside.keep([RECORDS[3]])
    assert repost(tmp_path, poster) == 1
    ingress.hostile = ()
    assert repost(tmp_path, poster) == 1
    assert ingress.taken == [RECORDS[3], RECORDS[5]] and files_of(tmp_path) == []


def test_a_record_written_while_its_file_is_posted_again_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingress, aside = Ingress(413), Aside(tmp_path, "1-a", 1 << 20)
    settings = PluginSettings(url="http://x", ring_path=str(tmp_path), token="t")
    poster = Poster(settings, Counts(), httpx.Client(transport=httpx.MockTransport(ingress)))
    aside.keep([RECORDS[3]])
    really_open = os.open

    def opened(path: Any, *rest: Any) -> int:
        file = really_open(path, *rest)
        if path == tmp_path / "1-a.aside.ndjson":
            monkeypatch.setattr("os.open", really_open)
            assert repost(tmp_path, poster) == 1
        return file

    monkeypatch.setattr("os.open", opened)
    assert aside.keep([RECORDS[5]]) == 1
    assert [list(records_of(path)) for path in files_of(tmp_path)] == [[RECORDS[5]]]


def test_a_line_that_a_crash_truncated_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "x.aside.ndjson").write_bytes(b'{"a":1}\n{"a":')
    assert kept_in(tmp_path)[:2] == (1, 1)


def test_the_command_answers_a_wrong_setting_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Earlier it was a traceback; and a folder that does not exist was an empty one."""
    for name in ("METERBRIDGE_URL", "METERBRIDGE_SECRET", "METERBRIDGE_TOKEN", "METERBRIDGE_RING_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert main("status") == 2
    assert "METERBRIDGE_URL is not set" in capsys.readouterr().err
    monkeypatch.setenv("METERBRIDGE_URL", "http://localhost:1")
    monkeypatch.setenv("METERBRIDGE_TOKEN", "0123456789abcdef")
    monkeypatch.setenv("METERBRIDGE_RING_PATH", str(tmp_path / "nowhere"))
    assert main("status") == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert "METERBRIDGE_RING_PATH is no folder: " in told.err
