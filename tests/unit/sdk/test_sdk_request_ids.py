"""The transaction id of a request: equal for a repeat, different for any other request, and never random."""

import subprocess
import sys
from hashlib import sha256
from itertools import combinations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from meterbridge_sdk.request_ids import ID_HEADERS, RequestIds, given_id, transaction_id

TEXT = st.text(max_size=20)
REQUEST = st.tuples(TEXT, st.none() | TEXT, st.sampled_from(["GET", "POST"]), TEXT, st.sampled_from(ID_HEADERS), TEXT)


@given(REQUEST, REQUEST)
def test_only_the_same_request_of_the_same_user_has_the_same_id(
    one: tuple[str, str | None, str, str, str, str], other: tuple[str, str | None, str, str, str, str]
) -> None:
    """Two clients may choose the same value: neither may be billed for the other, and no call may be lost."""
    assert (transaction_id(*one) == transaction_id(*other)) is (one == other)


@given(REQUEST)
def test_an_id_is_the_same_as_in_earlier_releases(request_: tuple[str, str | None, str, str, str, str]) -> None:
    """A repeat may reach an instance with the middleware from before the SDK, which encoded with msgspec."""
    org_id, user_id, method, path, header, value = request_
    before = msgspec.json.encode([org_id, user_id, method.upper(), path, header.lower(), value])
    assert transaction_id(*request_) == "req_" + sha256(before).hexdigest()


def test_the_parts_of_an_id_are_separated_unambiguously() -> None:
    ids = {
        transaction_id("org_1", "u", "GET", "/a", "X-Request-ID", "b"),
        transaction_id("org_1", "u", "GET", "/ab", "X-Request-ID", ""),
        transaction_id("org_1u", None, "GET", "/a", "X-Request-ID", "b"),
        transaction_id("org_1", None, "GET", "/a", "X-Request-ID", "b"),
        transaction_id("org_1", "", "GET", "/a", "X-Request-ID", "b"),
        transaction_id("org_1", "u", "GET", "/a", "Idempotency-Key", "b"),
    }
    assert len(ids) == 6


def test_spellings_that_http_treats_as_equal_give_the_same_id() -> None:
    assert transaction_id("o", "u", "get", "/", "x-request-id", "1") == transaction_id(
        "o", "u", "GET", "/", "X-Request-ID", "1"
    )


def test_an_id_is_the_same_in_every_process_and_has_a_known_format() -> None:
    """A client's repeat may reach another instance, which runs another version of this product."""
    result = "from meterbridge_sdk.request_ids import transaction_id as t; print(t('org_1','u','POST','/v1','X-Request-ID','7'))"
    elsewhere = subprocess.run(
        [sys.executable, "-c", result], capture_output=True, text=True, check=True
    ).stdout.strip()
    here = transaction_id("org_1", "u", "POST", "/v1", "X-Request-ID", "7")
    assert here == elsewhere == "req_acfa191531e448c24b6828b1be6cf7eb03c0d56cf3950849bb30364b61e381b2"


def test_the_first_header_with_a_value_counts() -> None:
    assert given_id({}, ID_HEADERS) is None
    assert given_id({"idempotency-key": " ", "x-request-id": "7 "}, ID_HEADERS) == ("X-Request-ID", "7")
    both = {"idempotency-key": "k", "x-request-id": "7"}
    assert given_id(both, ID_HEADERS) == ("Idempotency-Key", "k")
    assert given_id(both, ("X-Request-ID",)) == ("X-Request-ID", "7")
    assert given_id(both, ()) is None


def test_generated_ids_differ_even_if_the_clock_stands_still() -> None:
    """Two requests at one moment are two, in one process or in several."""
    makers = [RequestIds(lambda: 7) for _ in range(3)]
    created = [maker() for maker in makers for _ in range(100)]
    assert all(one != other for one, other in combinations(created, 2))
    assert {len(one) for one in created} == {32}
