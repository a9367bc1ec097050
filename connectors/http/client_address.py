"""Which client addresses are allowed, and which proxies are trusted to name the client in `X-Forwarded-For`."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp.web import BaseRequest
from multidict import CIMultiDictProxy

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address

_FORWARDED = "X-Forwarded-For"


class ClientAddressPolicy:
    """The allowed addresses and the trusted proxies.

    Args:
        allowed: networks that may send requests; empty = all.
        proxies: networks whose `X-Forwarded-For` is trusted. Any client can write that header, so it is ignored from others.
    """

    def __init__(self, allowed: Sequence[Network], proxies: Sequence[Network]) -> None:
        self._allowed = allowed
        self._proxies = proxies

    def admit(self, peer: str | None, headers: CIMultiDictProxy[str]) -> bool:
        """Return whether this request comes from an allowed address."""
        if not self._allowed:
            return True
        origin = self.origin(peer, headers.getall(_FORWARDED, ()))
        return origin is not None and _is_in(origin, self._allowed)

    def trusts(self, peer: str) -> bool:
        """Return whether this address is a trusted proxy, which sends requests for many clients."""
        address = _address(peer) if self._proxies else None
        return address is not None and _is_in(address, self._proxies)

    def origin(self, peer: str | None, forwarded: Iterable[str]) -> _Address | None:
        """Return the client's address as named by trusted proxies; None if the value is not an address.

        Each proxy appends the address it got the request from, so the header is read from its end. The first address that is
        not a trusted proxy is the client; that client may have written everything before it.
        """
        hops = [hop.strip() for line in forwarded for hop in line.split(",")]
        origin = _address(peer or "")
        while origin is not None and hops and _is_in(origin, self._proxies):
            origin = _address(hops.pop())
        return origin


def source_of(policy: ClientAddressPolicy, request: BaseRequest) -> str:
    """Return the key by which the requests of one client are counted: its address, for IPv6 its /64 network; `""` if
    unknown.

    One customer of a provider has a whole /64 network, so a limit per single IPv6 address would have no effect.
    """
    headers = request.headers
    # aiohttp gives a plain dict for a request that it could not parse.
    forwarded = headers.getall(_FORWARDED) if _FORWARDED in headers else ()
    address = policy.origin(request.remote, forwarded)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return str(address or "")


def _address(text: str) -> _Address | None:
    """Parses an address with or without a port or brackets; an IPv4-mapped IPv6 address becomes IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _is_in(address: _Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
