"""Which network addresses a tenant's webhook may lead to.

A tenant chooses the address, and the request comes from inside the installation's network: so whatever is not public is
refused (private, loopback, link-local with the clouds' metadata services, shared, reserved, multicast), however it is
written. What is judged is the address that will be connected to, never a name.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_TRANSLATED: Final = tuple(IPv6Network(text) for text in ("64:ff9b::/96", "::/96"))
"""IPv6 networks whose last 32 bits are an IPv4 address, beside those that the library knows."""


def refused(address: str, *, allowed: Iterable[Network]) -> str | None:
    """Why nothing is sent to this address, or None. `allowed`: networks that may be reached though not public."""
    given = ip_address(address.partition("%")[0])
    reached = _inner(given)
    if any(candidate in network for candidate in {given, reached} for network in allowed):
        return None
    if reached.is_global and not reached.is_multicast:
        return None
    return f"{address} is not a public address"


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if (known := address.ipv4_mapped or address.sixtofour) is not None:
        return known
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in _TRANSLATED):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address
