"""Which chain is taken when the CA offers several (RFC 8555 §7.4.2), against Pebble and against nonsense."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import NameOID

from certfleet.acme_ca.chains import read_chain
from certfleet.acme_ca.keys import CertificateKey, make_account_key, make_key
from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.protocol import Issued, Signer, download
from certfleet.acme_ca.transport import Transport
from certfleet.demo.pebble import DemoCA, pebble
from certfleet.errors import CAMisbehaved
from certfleet.models import KeyType

from .flow import Handler, issue, responder, scripted, signer_at


async def roots(ca: DemoCA, count: int) -> dict[str, x509.Certificate]:
    """Common name -> root, the default one first."""
    found = [x509.load_pem_x509_certificate((await ca.root(number)).encode()) for number in range(count)]
    return {str(root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value): root for root in found}


def ends_at(issued: Issued, root: x509.Certificate) -> None:
    """The chain is signed from the leaf up to the root."""
    whole = [x509.load_pem_x509_certificate(pem.encode()) for pem in (issued.leaf, *issued.chain)]
    for lower, upper in zip(whole, [*whole[1:], root], strict=True):
        lower.verify_directly_issued_by(upper)


async def test_every_chain_that_pebble_has_can_be_had(tmp_path: Path) -> None:
    """Each by the name of its root; the certificate is the same in all of them."""
    async with (
        responder() as served,
        pebble(tmp_path, http_port=served.port, alternate_roots=2) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        names = await roots(ca, 3)
        assert len(names) == 3, "three roots, each with its own name"
        signer = await signer_at(transport)
        plain = await issue(transport, signer, ["a.example.com"], served)
        assert plain.issuer == next(iter(names))
        for name, root in names.items():
            issued = await issue(transport, signer, ["a.example.com"], served, preferred=name)
            assert issued.issuer == name
            ends_at(issued, root)


async def test_a_chain_that_there_is_not_is_the_default(tmp_path: Path) -> None:
    """And what was looked at can be told."""
    async with (
        responder() as served,
        pebble(tmp_path, http_port=served.port, alternate_roots=1) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        names = await roots(ca, 2)
        issued = await issue(
            transport, await signer_at(transport), ["a.example.com"], served, preferred="DST Root CA X3"
        )
        assert issued.issuer == next(iter(names))
        assert set(issued.issuers) == set(names)
        ends_at(issued, names[issued.issuer])


async def one_certificate(directory: Path, key: CertificateKey) -> Issued:
    """A certificate of a CA that is gone again."""
    async with (
        responder() as served,
        pebble(directory / "pebble", http_port=served.port) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        return await issue(transport, await signer_at(transport), ["a.example.com"], served, key=key)


async def test_alternates_that_are_none_are_passed_over(tmp_path: Path) -> None:
    """Refused, unreadable, elsewhere, of another certificate: the certificate itself is taken all the same."""
    key = await make_key(KeyType.P256)
    good = await one_certificate(tmp_path, key)
    whole, other = good.leaf + good.chain[0], good.chain[0]

    async def first(request: web.BaseRequest) -> web.Response:
        origin = f"https://{request.host}"
        links = [f'<{origin}/{n}>;rel="alternate"' for n in range(3)]
        links += ['<https://elsewhere.example/x>;rel="alternate"', '<https://[x>;rel="alternate"']
        links += ['</relative>;rel="alternate"']
        answer = web.Response(text=whole)
        for link in links:
            answer.headers.add("Link", link)
        return answer

    replies: list[web.Response | Handler] = [
        first,
        web.json_response({"type": "about:blank", "detail": "no"}, status=404),
        web.Response(text="nonsense"),
        web.Response(text=other),
        web.Response(text=whole),
    ]
    async with scripted(tmp_path, *replies) as (script, transport):
        signer = Signer(make_account_key(), "https://127.0.0.1/account/1")
        url = transport.ca.directory.replace("/dir", "/cert")
        issued = await download(
            transport, signer, url, key=key, identifiers=["a.example.com"], preferred="some other root"
        )
        assert issued.leaf in whole
        assert len(issued.issuers) == 2, "the default, and the one with a relative link"
        assert [asked for asked in script.asked if asked.startswith("POST")] == [
            "POST /cert", "POST /0", "POST /1", "POST /2", "POST /relative",
        ]  # fmt: skip


async def test_a_cut_chain_is_none(tmp_path: Path) -> None:
    """Wherever it was cut, it is refused or whole; a leaf alone is asked for twice, and believed then."""
    key = await make_key(KeyType.P256)
    good = await one_certificate(tmp_path, key)
    whole = (good.leaf + good.chain[0]).encode()
    for length in range(len(whole)):
        try:
            found = read_chain(whole[:length])
        except CAMisbehaved:
            continue
        assert len(found.above) == 1 or length in (len(good.leaf) - 1, len(good.leaf))
    replies = [web.Response(text=text) for text in (good.leaf, whole.decode(), good.leaf, good.leaf)]
    async with scripted(tmp_path, *replies) as (_, transport):
        signer, url = Signer(make_account_key(), "https://127.0.0.1/account/1"), transport.ca.directory
        url = url.replace("/dir", "/cert")
        first, second = [
            await download(transport, signer, url, key=key, identifiers=["a.example.com"]) for _ in range(2)
        ]
        assert first.chain == good.chain
        assert second.chain == (), "a CA without intermediates says so twice"
