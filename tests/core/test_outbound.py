"""Only public addresses may be reached, in whichever form an address is written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.outbound import refused

INSIDE = (
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
)  # fmt: skip


@pytest.mark.parametrize(
    "address",
    [*INSIDE, "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"],
)
def test_what_is_not_public_is_refused(address: str) -> None:
    assert refused(address, allowed=()) == f"{address} is not a public address"


@pytest.mark.parametrize("address", INSIDE)
def test_an_ipv4_address_within_an_ipv6_address_is_judged_as_itself(address: str) -> None:
    number = int(IPv4Address(address))
    teredo = (0x20010000 << 96) | (0x01020304 << 64) | (number ^ 0xFFFFFFFF)
    for carrying in ((0xFFFF << 32) | number, (0x2002 << 112) | (number << 80), (0x64FF9B << 96) | number, teredo):
        assert refused(str(IPv6Address(carrying)), allowed=()), IPv6Address(carrying)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"]
)
def test_a_public_address_is_not(address: str) -> None:
    assert refused(address, allowed=()) is None


@given(st.ip_addresses(v=4))
def test_a_network_that_is_allowed_allows_no_other(address: IPv4Address) -> None:
    network = ip_network("10.1.0.0/16")
    inside, mapped = address in network, f"::ffff:{address}"
    assert inside <= (refused(str(address), allowed=[network]) is None)
    assert inside <= (refused(mapped, allowed=[network]) is None)
    if not inside:
        assert refused(str(address), allowed=[network]) == refused(str(address), allowed=())
