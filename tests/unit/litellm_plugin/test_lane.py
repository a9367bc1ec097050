"""A lane returns every complete record that was written, no matter what happened to the bytes around it, and returns
none twice.
"""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterbridge_litellm.lane import Lane, RingPosition, ended_lanes, frame, frames, new_lane

RECORDS = [b'{"id":"%d"}' % number for number in range(5)]
WHOLE = b"".join(map(frame, RECORDS))
ENDS = [sum(len(frame(record)) for record in RECORDS[: number + 1]) for number in range(5)]
HOLDER = """
import sys, time
from pathlib import Path
from meterbridge_litellm.lane import Lane, frame

lane = Lane(Path(sys.argv[1]), "held")
lane.segment(1).write_bytes(frame(b"{}"))
print("held", flush=True)
time.sleep(60)
"""


def left_by_another(folder: Path, data: bytes, number: int = 1) -> Lane:
    """A lane with one segment, whose process has ended."""
    lane = Lane(folder, "left")
    lane.segment(number).write_bytes(data)
    return lane


@pytest.mark.parametrize("cut", range(len(WHOLE) + 1))
def test_a_process_killed_at_any_byte_loses_no_complete_record(tmp_path: Path, cut: int) -> None:
    lane = left_by_another(tmp_path, WHOLE[:cut])
    found = lane.read(100)
    whole = sum(end <= cut for end in ENDS)
    assert found.records == RECORDS[:whole]
    assert found.damaged == cut - (ENDS[whole - 1] if whole else 0)
    assert found.behind == (RingPosition(1, cut) if cut else RingPosition(0, 0))


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_damaged_byte_loses_one_record_at_most(at: int, flipped: int) -> None:
    damaged = WHOLE[:at] + bytes([WHOLE[at] ^ flipped]) + WHOLE[at + 1 :]
    found = [record for record, _ in frames(damaged)]
    hit = next(number for number, end in enumerate(ENDS) if at < end)
    assert found == [record for number, record in enumerate(RECORDS) if number != hit]


def test_a_record_that_contains_a_stored_record_is_one_record() -> None:
    nested = b'{"user":"%b"}' % frame(b"{}").replace(b"\0", b"?")
    assert [record for record, _ in frames(frame(nested) + frame(b"{}"))] == [nested, b"{}"]


def test_records_are_returned_in_order_across_segments_and_none_twice(tmp_path: Path) -> None:
    lane = left_by_another(tmp_path, WHOLE)
    lane.segment(2).write_bytes(frame(b'{"id":"last"}'))
    given: list[bytes] = []
    while (batch := lane.read(2)).behind != lane.done:
        given += batch.records
        lane.posted(batch.behind)
    assert given == [*RECORDS, b'{"id":"last"}']
    assert not lane.segment(1).exists(), "a segment whose records are posted is deleted"


def test_the_posted_position_survives_a_kill(tmp_path: Path) -> None:
    lane = left_by_another(tmp_path, WHOLE)
    lane.posted(lane.read(3).behind)
    lane.close()
    assert Lane(tmp_path, "left").read(100).records == RECORDS[3:]


def test_a_record_that_is_not_durable_yet_is_not_returned(tmp_path: Path) -> None:
    lane = left_by_another(tmp_path, WHOLE)
    assert lane.read(100, RingPosition(1, ENDS[1])).records == RECORDS[:2]
    lane.posted(RingPosition(1, ENDS[1]))
    assert lane.read(100, RingPosition(1, ENDS[1])) == ([], RingPosition(1, ENDS[1]), 0)


def test_a_lane_belongs_to_one_process_until_this_process_ends(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert list(ended_lanes(tmp_path, frozenset())) == []
        holder.kill()
        holder.wait()
    [lane] = ended_lanes(tmp_path, frozenset())
    assert lane.read(9).records == [b"{}"]
    assert list(ended_lanes(tmp_path, frozenset({"held"}))) == []
    with pytest.raises(OSError, match="temporarily unavailable"):
        Lane(tmp_path, "held")
    lane.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_lane_that_another_process_opens_while_it_is_created_gets_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the creation of the file and its lock another process may have taken it for an abandoned one."""
    neighbours: list[Lane] = []
    real = fcntl.flock

    def late(file: int, how: int) -> None:
        if not neighbours:
            neighbours.append(Lane.__new__(Lane))  # the neighbour's own lock comes through here too
            neighbours[:] = ended_lanes(tmp_path, frozenset())
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    created = new_lane(tmp_path)
    assert [neighbour.name for neighbour in neighbours] != [created.name]
    assert len(neighbours) == 1


def test_a_segment_without_its_lane_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "lost.00000001.seg").write_bytes(frame(b"{}"))
    [lane] = ended_lanes(tmp_path, frozenset())
    assert lane.read(9).records == [b"{}"]


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    Lane(tmp_path, "mine")
    assert (tmp_path / "mine.lane").stat().st_mode & 0o777 == 0o600
