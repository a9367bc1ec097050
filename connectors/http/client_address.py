"""From which addresses may be posted, and who is believed when it says that it posts for somebody else."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from multidict import CIMultiDictProxy

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address

_FORWARDED = "X-Forwarded-For"


class ClientAddressPolicy:
    """The allow-list.

    Args:
        allowed: whence may be posted; empty = everywhere.
        proxies: who is believed in `X-Forwarded-For`; nobody else is, for any client can write that header.
    """

    def __init__(self, allowed: Sequence[Network], proxies: Sequence[Network]) -> None:
        self._allowed = allowed
        self._proxies = proxies

    def admit(self, peer: str | None, headers: CIMultiDictProxy[str]) -> bool:
        """Whether this request comes from an allowed address."""
        if not self._allowed:
            return True
        origin = self.origin(peer, headers.getall(_FORWARDED, ()))
        return origin is not None and _is_in(origin, self._allowed)

    def trusts(self, peer: str) -> bool:
        """Whether this is one of our proxies, which posts for many."""
        address = _address(peer) if self._proxies else None
        return address is not None and _is_in(address, self._proxies)

    def origin(self, peer: str | None, forwarded: Iterable[str]) -> _Address | None:
        """The last address that no trusted proxy has; None for what is no address.

        Each proxy appends whom it talked to, so the header is read from its end: what stands before the first
        stranger is what that stranger says.
        """
        hops = [hop.strip() for line in forwarded for hop in line.split(",")]
        origin = _address(peer or "")
        while origin is not None and hops and _is_in(origin, self._proxies):
            origin = _address(hops.pop())
        return origin


def _address(text: str) -> _Address | None:
    """With or without a port or brackets; IPv4 in IPv6's clothes is IPv4."""
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
