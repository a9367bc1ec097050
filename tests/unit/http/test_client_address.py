"""The allow-list of client addresses: the peer's address counts, and a header counts only if a trusted proxy wrote it."""

from ipaddress import ip_network

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from connectors.http.client_address import ClientAddressPolicy

ALLOWED = [ip_network("198.51.100.0/24"), ip_network("2001:db8::/32")]
PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
DIRECT, BEHIND = ClientAddressPolicy(ALLOWED, []), ClientAddressPolicy(ALLOWED, PROXIES)


def headers(*forwarded: str) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict([("x-forwarded-for", line) for line in forwarded]))


@pytest.mark.parametrize(
    ("peer", "admitted"),
    [
        ("198.51.100.7", True),
        ("198.51.101.7", False),
        ("2001:db8::1", True),
        ("::ffff:198.51.100.7", True),
        ("::ffff:10.0.0.1", False),
        ("", False),
        (None, False),
    ],
)
def test_without_a_proxy_the_peers_address_counts(peer: str | None, admitted: bool) -> None:
    for origins in (DIRECT, BEHIND):
        assert origins.admit(peer, headers()) is admitted


def test_an_empty_list_allows_every_address() -> None:
    assert ClientAddressPolicy([], PROXIES).admit("203.0.113.1", headers("203.0.113.2"))
    assert ClientAddressPolicy([], []).admit(None, headers())


@pytest.mark.parametrize("peer", ["203.0.113.1", "198.51.100.7"])
def test_a_header_from_an_untrusted_peer_is_ignored(peer: str) -> None:
    """Any client can write this header."""
    for said in ("198.51.100.1", "203.0.113.9"):
        for origins in (DIRECT, BEHIND):
            assert origins.admit(peer, headers(said)) is (peer == "198.51.100.7")


@pytest.mark.parametrize(
    ("forwarded", "origin"),
    [
        (["198.51.100.7"], "198.51.100.7"),
        (["198.51.100.7, 203.0.113.1"], "203.0.113.1"),
        (["203.0.113.1, 198.51.100.7"], "198.51.100.7"),
        (["203.0.113.1, 198.51.100.7, 10.9.9.9"], "198.51.100.7"),
        (["203.0.113.1", "198.51.100.7", "10.9.9.9 ,fd00::2"], "198.51.100.7"),
        (["198.51.100.7", "203.0.113.1"], "203.0.113.1"),
        (["198.51.100.7:4711"], "198.51.100.7"),
        (["[2001:db8::7]:4711"], "2001:db8::7"),
        (["2001:db8::7"], "2001:db8::7"),
        (["::ffff:198.51.100.7"], "198.51.100.7"),
        (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (["198.51.100.7, unknown"], None),
        (["198.51.100.7, "], None),
        ([], "10.0.0.1"),
    ],
)
def test_behind_proxies_the_last_untrusted_address_counts(forwarded: list[str], origin: str | None) -> None:
    """Each proxy appends the address of its peer: addresses before the last untrusted one may be invented by the
    client.
    """
    found = BEHIND.origin("10.0.0.1", forwarded)
    assert (str(found) if found is not None else None) == origin
    expected = origin is not None and any(origin.startswith(start) for start in ("198.51.100.", "2001:db8:"))
    assert BEHIND.admit("10.0.0.1", headers(*forwarded)) is expected
