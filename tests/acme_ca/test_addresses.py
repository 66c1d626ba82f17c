"""Certificates for IP addresses (RFC 8738) from Pebble itself: validated at the address, without a name anywhere."""

from __future__ import annotations

import json
import socket
from base64 import urlsafe_b64decode
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509

from certfleet.acme_ca.keys import make_account_key, make_csr, make_key
from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.protocol import Signer, new_order
from certfleet.acme_ca.transport import Transport
from certfleet.demo.pebble import pebble
from certfleet.models import KeyType

from .flow import Responder, issue, order_made, responder, scripted, signer_at


async def also_on_ipv6(served: Responder) -> web.ServerRunner:
    """The same answers at ::1, on the same port."""
    runner = web.ServerRunner(web.Server(served.answer, access_log=None), shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "::1", served.port).start()
    return runner


def has_ipv6() -> bool:
    """Whether this machine's loopback has it."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as trial:
            trial.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "names",
    [
        ["127.0.0.1"],
        pytest.param(["::1"], marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")),
        ["127.0.0.1", "a.example.com"],
    ],
    ids=" and ".join,
)
async def test_pebble_certifies_addresses(tmp_path: Path, names: list[str]) -> None:
    """They are iPAddress entries, never names; a name beside them is the common name of the request."""
    async with (
        responder() as served,
        pebble(tmp_path, http_port=served.port) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        runner = await also_on_ipv6(served) if "::1" in names else None
        try:
            issued = await issue(transport, await signer_at(transport), names, served)
        finally:
            if runner:
                await runner.cleanup()
    leaf = x509.load_pem_x509_certificate(issued.leaf.encode())
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one) for one in found.get_values_for_type(x509.IPAddress)] == names[:1]
    assert found.get_values_for_type(x509.DNSName) == names[1:]


async def test_an_address_is_no_common_name() -> None:
    """The first DNS name is; with addresses alone there is none."""
    key = await make_key(KeyType.P256)
    assert not x509.load_der_x509_csr(make_csr(key, ["192.0.2.1", "2001:db8::1"])).subject.rdns
    both = x509.load_der_x509_csr(make_csr(key, ["192.0.2.1", "a.example.com"]))
    assert both.subject.rfc4514_string() == "CN=a.example.com"


async def test_an_ipv6_address_may_be_written_at_length(tmp_path: Path) -> None:
    """The same address in the CA's order is the one that was asked for; identifiers of type ip are sent as such."""
    sent: list[bytes] = []

    made = order_made(sent, {"type": "ip", "value": "2001:0DB8:0:0:0:0:0:1"})
    async with scripted(tmp_path, made) as (_, transport):
        order = await new_order(transport, Signer(make_account_key(), "https://127.0.0.1/account/1"), ["2001:db8::1"])
    assert order.identifiers == ("2001:db8::1",)
    payload = json.loads(sent[0])["payload"]
    assert json.loads(urlsafe_b64decode(payload + "==")) == {"identifiers": [{"type": "ip", "value": "2001:db8::1"}]}
