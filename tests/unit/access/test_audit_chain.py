"""Properties of the audit log's hash chain: every change of a line that a later line refers to is found, and that line
is named.
"""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.access.audit_chain import AuditLine, ChainHead, chain_head_of, line_of, sealed
from connectors.access.audit_verify import STALE_US, AuditVerdict, verified
from schemas.records import AuditRecord

SECOND = 1_000_000


def record(number: int, actor: str = "ada") -> AuditRecord:
    return AuditRecord(f"id{number}", number * SECOND, actor, "DELETE /things", {"thing": str(number)})


def lines_of(values: Sequence[bytes], first_offset: int = 0) -> list[AuditLine]:
    return [line_of(first_offset + number, value) for number, value in enumerate(values)]


def chain_head(values: Sequence[bytes]) -> ChainHead:
    head = chain_head_of(lines_of(values), from_the_beginning=True)
    assert head is not None
    return head


def log(length: int, old: int = 0, lags: Sequence[int] = ()) -> list[bytes]:
    """A topic with lines of the audit log. `lags`: how many of the newest lines each line's writer had not read yet, 0
    after the last.
    """
    values = [msgspec.json.encode(record(number)) for number in range(old)]
    for number in range(old, old + length):
        lag = lags[number - old] if number - old < len(lags) else 0
        values.append(sealed(record(number), chain_head(values[: max(old, len(values) - lag)])))
    return values


def verify(values: Sequence[bytes], noted: ChainHead | None = None) -> AuditVerdict:
    return verified(lines_of(values), noted, from_the_beginning=True)


def fault_kinds(values: Sequence[bytes]) -> tuple[str, str]:
    broken = verify(values).broken
    assert broken is not None
    return broken.kind, broken.audit_id


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(0, 3))
def test_an_unchanged_log_verifies_also_with_concurrent_writers(lags: list[int], old: int) -> None:
    verdict = verify(log(len(lags), old, lags))
    assert (verdict.broken, verdict.old, verdict.unchecked) == (None, old, 0)
    assert verdict.head.covered == len(lags)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(0, 14), st.data())
def test_a_writer_that_reads_only_the_end_gets_the_same_head_as_one_that_reads_all(
    lags: list[int], start: int, data: st.DataObject
) -> None:
    values = log(len(lags), data.draw(st.integers(0, 2)), lags)
    part = chain_head_of(lines_of(values)[min(start, len(values)) :], from_the_beginning=start == 0)
    assert part in (None, chain_head(values))


@given(st.lists(st.integers(0, 2), min_size=5, max_size=10), st.data())
def test_any_change_of_a_line_that_a_later_line_refers_to_is_found(lags: list[int], data: st.DataObject) -> None:
    values = log(len(lags), 0, [*lags, 0, 0, 0])
    values += [sealed(record(90), chain_head(values))]
    at = data.draw(st.integers(0, len(values) - 2))
    what = data.draw(st.sampled_from(["changed", "deleted", "inserted", "swapped"]))
    broken = list(values)
    if what == "changed":
        result = msgspec.json.decode(values[at], type=AuditRecord)
        broken[at] = sealed(
            msgspec.structs.replace(result, actor="eve"), ChainHead(result.prev, result.covered, result.chain)
        )
    elif what == "deleted":
        del broken[at]
    elif what == "inserted":
        broken.insert(at, sealed(record(99), chain_head(values[:at])))
    else:
        broken[at], broken[at + 1] = broken[at + 1], broken[at]
    if what != "swapped" or b'"id90"' in values[at + 1] or at + 1 < len(values) - 1:
        assert verify(broken).broken is not None, what


def test_a_changed_line_is_named() -> None:
    values = log(6)
    values[2] = values[2].replace(b'"ada"', b'"eve"')
    assert fault_kinds(values) == ("changed", "id2")


def test_a_line_that_was_changed_with_its_own_hash_is_named() -> None:
    values = log(6)
    result = msgspec.json.decode(values[2], type=AuditRecord)
    values[2] = sealed(record(2, "eve"), ChainHead(result.prev, result.covered, result.chain))
    assert fault_kinds(values) == ("changed", "id2")


def test_a_deleted_line_is_named() -> None:
    values = log(6)
    del values[2]
    assert fault_kinds(values) == ("missing", "id2")


def test_the_first_line_that_is_deleted_is_named() -> None:
    assert fault_kinds(log(6)[1:]) == ("missing", "id0")


@pytest.mark.parametrize("length", [1, 2, 3])
def test_deleted_adjacent_lines_are_reported_missing(length: int) -> None:
    values = log(8)
    del values[2 : 2 + length]
    assert fault_kinds(values)[0] == "missing"


def test_an_inserted_line_is_named_even_if_its_own_hash_is_right() -> None:
    values = log(6)
    values.insert(3, sealed(record(99), chain_head(values[:3])))
    assert fault_kinds(values) == ("inserted", "id99")


def test_a_line_without_a_hash_is_forged_if_it_follows_lines_with_a_hash() -> None:
    values = log(4, old=2)
    assert verify(values).broken is None
    values.insert(4, msgspec.json.encode(record(99)))
    assert fault_kinds(values) == ("forged", "id99")


def test_bytes_that_are_no_log_line_are_reported_as_forged() -> None:
    values = log(4)
    values.insert(2, b"{[")
    broken = verify(values).broken
    assert broken is not None
    assert (broken.kind, broken.offset) == ("forged", 2)


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_two_swapped_lines_are_named(at: int) -> None:
    values = log(6)
    values[at], values[at + 1] = values[at + 1], values[at]
    kind, named = fault_kinds(values)
    assert (kind, named) == ("reordered", f"id{at}") or (at == 0 and kind == "missing")


def test_swapped_lines_that_were_written_concurrently_are_found() -> None:
    values = log(6, 0, [0, 0, 1, 0, 0, 0])
    values[1], values[2] = values[2], values[1]
    assert fault_kinds(values)[0] == "reordered"


def test_a_line_whose_writer_has_read_nothing_for_an_hour_is_forged() -> None:
    """Otherwise an attacker who read the log once could append to it at any later time."""
    values = log(4)
    late = record(99)
    late = msgspec.structs.replace(late, at=record(2).at + STALE_US + 1)
    values.append(sealed(late, chain_head(values[:2])))
    assert fault_kinds(values) == ("forged", "id99")


def test_lines_missing_at_the_end_are_found_with_a_saved_chain_head() -> None:
    values = log(6)
    head = verify(values).head
    assert verify(values[:-1]).broken is None, "a chain alone cannot tell how long it was"
    broken = verify(values[:-2], head).broken
    assert broken is not None
    assert (broken.kind, broken.offset) == ("missing", -1)
    assert verify([*values, sealed(record(9), chain_head(values))], head).broken is None


def test_a_log_that_was_rewritten_completely_is_found_with_a_saved_chain_head() -> None:
    head = verify(log(6)).head
    again: list[bytes] = []
    for number in range(6):
        again.append(sealed(record(number, "eve"), chain_head(again)))
    assert verify(again).broken is None
    broken = verify(again, head).broken
    assert broken is not None
    assert broken.kind == "forged"


@given(st.lists(st.integers(0, 2), min_size=8, max_size=12), st.integers(1, 6))
def test_expired_lines_are_no_fault_and_the_lines_after_them_are_verified(lags: list[int], gone: int) -> None:
    values = log(len(lags), 0, lags)
    left = lines_of(values)[gone:]
    verdict = verified(left, from_the_beginning=False)
    assert verdict.broken is None
    damaged = [*left[:-2], line_of(left[-2].offset, left[-2].value.replace(b'"ada"', b'"eve"')), left[-1]]
    assert verified(damaged, from_the_beginning=False).broken is not None


def test_an_empty_log_and_a_log_with_only_old_lines_verify() -> None:
    assert verify([]).broken is None
    verdict = verify(log(0, old=3))
    assert (verdict.broken, verdict.old, verdict.head) == (None, 3, ChainHead())
