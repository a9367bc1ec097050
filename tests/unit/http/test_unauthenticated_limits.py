"""Connections of unauthenticated clients: a new one gets a place as long as another is idle, and a trusted proxy is
never closed because of its address.
"""

from ipaddress import ip_network

import pytest
import structlog.testing
from aiohttp.test_utils import make_mocked_request

from connectors.http.client_address import ClientAddressPolicy
from connectors.http.unauthenticated_limits import SLOWED_S, Bounds, UnauthenticatedConnections
from schemas.reasons import FULL, FULL_OF_ONE


class Connection:
    def __init__(self, address: str, *, idle: bool = True) -> None:
        self.address = address
        self.idle = idle
        self.spare = self.closed = False

    def is_idle(self) -> bool:
        return self.idle

    def is_spare(self) -> bool:
        return self.spare

    def drop(self) -> None:
        self.closed = True


class World:
    def __init__(self, bounds: Bounds, proxies: str = "203.0.113.0/24") -> None:
        self.causes: list[str] = []
        self.unauthenticated = UnauthenticatedConnections(
            bounds, ClientAddressPolicy((), [ip_network(proxies)]), lambda: 0.0, self.causes.append
        )

    def connect(self, address: str, *, idle: bool = True) -> Connection | None:
        """A connection that is kept open; those that were closed for it are gone."""
        connection = Connection(address, idle=idle)
        return connection if self.unauthenticated.connected(connection) else None

    def many(self, count: int, address: str, *, idle: bool = True) -> list[Connection]:
        created = [self.connect(address, idle=idle) for _ in range(count)]
        assert None not in created
        return [one for one in created if one is not None]


def test_the_address_with_the_most_unauthenticated_connections_loses_its_oldest_one() -> None:
    world = World(Bounds(10, 8))
    few, many = world.many(3, "192.0.2.1"), world.many(7, "192.0.2.2")
    assert world.connect("192.0.2.3") is not None
    assert [one.closed for one in few] == [False] * 3
    assert [one.closed for one in many] == [True] + [False] * 6
    assert world.causes == [FULL]


def test_an_authenticated_or_sending_connection_keeps_its_place() -> None:
    world = World(Bounds(4, 4))
    known, sending = world.many(2, "192.0.2.1"), world.many(2, "192.0.2.1", idle=False)
    for one in known:
        world.unauthenticated.known(one)
    assert world.connect("192.0.2.9") is None
    assert not any(one.closed for one in (*known, *sending))
    world.unauthenticated.gone(sending[0])
    assert world.connect("192.0.2.9") is not None


def test_without_an_idle_connection_the_oldest_spare_one_is_closed() -> None:
    world = World(Bounds(4, 4))
    busy = world.many(4, "192.0.2.1", idle=False)
    busy[1].spare = busy[2].spare = True
    assert world.connect("192.0.2.9") is not None
    assert [one.closed for one in busy] == [False, True, False, False]
    world.unauthenticated.gone(busy[1])
    busy[3].idle = True
    assert world.connect("192.0.2.9") is not None
    assert [one.closed for one in busy] == [False, True, False, True]


@pytest.mark.parametrize(("address", "stays"), [("203.0.113.7", True), ("192.0.2.1", False)])
def test_a_trusted_proxys_connections_are_not_bounded_by_address(address: str, *, stays: bool) -> None:
    world = World(Bounds(10, 5))
    world.many(5, address, idle=False)
    assert (world.connect(address) is not None) == stays
    assert world.causes == ([] if stays else [FULL_OF_ONE])
    assert world.connect("198.51.100.1") is not None


def test_closed_connections_leave_no_state() -> None:
    world = World(Bounds(10, 5))
    for _ in range(100):
        for one in (*world.many(3, "192.0.2.1"), *world.many(3, "192.0.2.2")):
            world.unauthenticated.gone(one)
    assert len(world.many(5, "192.0.2.1")) == 5


def test_the_first_wrong_credential_of_an_address_is_logged_at_once() -> None:
    """Later ones of that address within a minute are counted in its next log line."""
    now = [100.0]
    unauthenticated = UnauthenticatedConnections(Bounds(10, 5), ClientAddressPolicy((), []), lambda: now[0])

    def refused(address: str) -> list[tuple[str, int]]:
        request = make_mocked_request("POST", "/", headers={"X": "1"})
        with structlog.testing.capture_logs() as lines:
            unauthenticated.answered(request.clone(remote=address), 401)
        return [(line["address"], line.get("further", 0)) for line in lines if line["event"] == "wrong_credentials"]

    assert refused("192.0.2.1") == [("192.0.2.1", 0)]
    now[0] += 59
    assert refused("192.0.2.1") == []
    assert refused("192.0.2.2") == [("192.0.2.2", 0)]
    now[0] += 3600
    assert refused("192.0.2.3") == [("192.0.2.1", 1), ("192.0.2.3", 0)]
    assert refused("192.0.2.2") == [("192.0.2.2", 0)]


def test_an_address_that_asks_without_a_pause_waits_for_what_needs_no_credential() -> None:
    """Scrapes of the metrics by one client once took the whole event loop: calls waited for 4.7 s."""
    now = [100.0]
    unauthenticated = UnauthenticatedConnections(Bounds(10, 5), ClientAddressPolicy((), []), lambda: now[0])

    def waits(address: str, status: int = 200, path: str = "/health/metrics") -> float:
        return unauthenticated.answered(make_mocked_request("GET", path).clone(remote=address), status)

    assert [waits("192.0.2.1") for _ in range(60)] == [0.0] * 50 + [SLOWED_S] * 10
    assert waits("192.0.2.1", path="/health/live") == waits("192.0.2.1", path="/health/ready") == 0.0
    assert waits("192.0.2.2") == 0.0
    assert waits("192.0.2.1", 401) == 0.0
    now[0] += 1
    assert waits("192.0.2.1") == 0.0
