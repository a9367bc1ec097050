"""The tag of an identity is stored: its numbers may not change, and every cost has a tag."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.metering.known_identities import (
    COSTLESS,
    FINGERPRINTS,
    NEVER,
    SETTLED,
    UNTOLD,
    differs,
    fingerprint,
    pack_identities,
    untold,
)

IDENTITY = bytes(range(1, 17))
#: Dollars whose tags are the first and the last there are: Python's hash of a small whole number is itself.
FIRST, LAST = Decimal(FINGERPRINTS), Decimal(FINGERPRINTS - 1)


def test_stored_ledgers_contain_these_numbers() -> None:
    assert (UNTOLD, COSTLESS, SETTLED, FINGERPRINTS) == (0, 1, 2, 65_534)
    assert NEVER not in range(1 << 16)


def test_every_tag_fits_into_two_bytes_and_has_one_meaning() -> None:
    assert (fingerprint(FIRST), fingerprint(LAST)) == (SETTLED, 0xFFFF)
    assert fingerprint(Decimal("0.02")) in range(SETTLED, 1 << 16)


@given(st.decimals(0, 10**6, places=12))
def test_an_unpacked_tag_equals_the_packed_one(cost: Decimal) -> None:
    tag = fingerprint(cost)
    assert tag in range(SETTLED, 1 << 16)
    assert pack_identities({IDENTITY: tag}) == IDENTITY[:14] + tag.to_bytes(2, "little")


def test_several_tags_are_packed_one_after_the_other() -> None:
    other = bytes(range(101, 117))
    packed = pack_identities({IDENTITY: COSTLESS, other: 0xABCD})
    assert packed == IDENTITY[:14] + b"\x01\x00" + other[:14] + b"\xcd\xab"
    assert untold(packed) == IDENTITY[:14] + b"\0\0" + other[:14] + b"\0\0"
    assert pack_identities({}) == untold(b"") == b""


@pytest.mark.parametrize("settled", [FIRST, LAST, Decimal("0.02")])
def test_another_cost_differs_from_every_settled_cost(settled: Decimal) -> None:
    tag = fingerprint(settled)
    assert differs(tag, settled + Decimal("0.01"))
    assert not differs(tag, settled)
    assert not differs(tag, Decimal(0)), "a copy without a cost tells none"


@pytest.mark.parametrize("tag", [NEVER, UNTOLD, COSTLESS])
def test_an_unsettled_call_differs_from_no_cost(tag: int) -> None:
    assert not differs(tag, Decimal("0.01"))
