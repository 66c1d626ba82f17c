"""DNS hosts' HTTP APIs, as strict as the real ones: PowerDNS's, DigitalOcean's, and acme-dns."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

VALUE = re.compile(r"[A-Za-z0-9_-]{43}")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class API:
    """One running, and what it holds."""

    url: str = ""
    token: str = "t0ken-of-the-api"
    records: dict[str, list[str]] = field(default_factory=dict)
    """name -> TXT values, the oldest first"""
    requests: list[str] = field(default_factory=list)
    """Method and path of each."""


@asynccontextmanager
async def served(api: API, handler: Handler) -> AsyncIterator[API]:
    """The API on a loopback port, for as long as the block."""

    async def noted(request: web.Request) -> web.StreamResponse:
        api.requests.append(f"{request.method} {request.path_qs}")
        return await handler(request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", noted)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        api.url = f"http://{host}:{port}"
        yield api
    finally:
        await runner.cleanup()


def answer(status: int, content: Any = None) -> web.Response:
    """JSON, or nothing."""
    return web.Response(status=status) if content is None else web.json_response(content, status=status)


def powerdns(api: API, zone: str) -> Handler:
    """https://doc.powerdns.com/authoritative/http-api/zone.html: RRsets are replaced as a whole."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.headers.get("X-API-Key") != api.token:
            return answer(401, {"error": "Unauthorized"})
        if request.path != f"/api/v1/servers/localhost/zones/{zone}.":
            return answer(404, {"error": "Could not find domain"})
        if request.method == "GET":
            rrsets = [_rrset(name, values) for name, values in api.records.items()]
            return answer(200, {"id": f"{zone}.", "name": f"{zone}.", "kind": "Native", "rrsets": rrsets})
        if request.method != "PATCH":
            return answer(405)
        faults = [_replaced(api, zone, rrset) for rrset in (await request.json())["rrsets"]]
        wrong = next((fault for fault in faults if fault), None)
        return answer(422, {"error": wrong}) if wrong else answer(204)

    return handle


def _rrset(name: str, values: list[str]) -> dict[str, Any]:
    records = [{"content": f'"{value}"', "disabled": False} for value in values]
    return {"name": f"{name}.", "type": "TXT", "ttl": 60, "comments": [], "records": records}


def _replaced(api: API, zone: str, rrset: dict[str, Any]) -> str | None:
    """Do it; what is wrong with it."""
    name = rrset["name"].removesuffix(".")
    if not rrset["name"].endswith(f"{zone}.") or rrset["type"] != "TXT":
        return f"RRset {name} IN {rrset['type']}: Name is out of zone"
    values = [record["content"] for record in rrset.get("records", [])]
    if len(set(values)) != len(values) or not all(re.fullmatch(r'"[^"]*"', value) for value in values):
        return f"Record {name}/TXT: duplicate, or not quoted"
    if rrset["changetype"] == "REPLACE" and not isinstance(rrset["ttl"], int):
        return "Key 'ttl' not an Integer"
    api.records[name] = [value.strip('"') for value in values]
    if rrset["changetype"] == "DELETE" or not values:
        del api.records[name]
    return None


@dataclass
class DigitalOcean:
    """https://docs.digitalocean.com/reference/api/: single records with ids, in pages, names relative to the domain."""

    api: API
    zone: str
    page: int = 2
    """Records in each."""
    known: dict[int, tuple[str, str]] = field(default_factory=dict)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if request.headers.get("Authorization") != f"Bearer {self.api.token}":
            return answer(401, {"id": "Unauthorized", "message": "Unable to authenticate you"})
        match request.method, request.path.removeprefix(f"/v2/domains/{self.zone}").strip("/").split("/"):
            case "GET", [""]:
                return answer(200, {"domain": {"name": self.zone, "ttl": 1800}})
            case "GET", ["records"]:
                return self.listed(int(request.query.get("page", "1")))
            case "POST", ["records"] if request.content_type == "application/json":
                return self.created(await request.json())
            case "DELETE", ["records", number] if int(number) in self.known:
                del self.known[int(number)]
                self._note()
                return answer(204)
        return answer(404, {"id": "not_found", "message": "The resource you requested could not be found."})

    def listed(self, number: int) -> web.Response:
        """One page."""
        numbers = sorted(self.known)[(number - 1) * self.page : number * self.page]
        more = len(self.known) > number * self.page
        pages = {"next": f"{self.api.url}/v2/domains/{self.zone}/records?page={number + 1}"} if more else {}
        content = {"domain_records": [self._show(one) for one in numbers], "links": {"pages": pages}}
        return answer(200, content | {"meta": {"total": len(self.known)}})

    def created(self, wanted: dict[str, Any]) -> web.Response:
        """One record more."""
        if wanted["type"] != "TXT" or wanted["name"].endswith(self.zone) or wanted["ttl"] < 30:
            return answer(422, {"id": "unprocessable_entity", "message": json.dumps(wanted)})
        number = max(self.known, default=100) + 1
        self.known[number] = (wanted["name"], wanted["data"])
        self._note()
        return answer(201, {"domain_record": self._show(number)})

    def _show(self, number: int) -> dict[str, Any]:
        name, value = self.known[number]
        return {"id": number, "type": "TXT", "name": name, "data": value, "ttl": 60}

    def _note(self) -> None:
        self.api.records.clear()
        for name, value in self.known.values():
            self.api.records.setdefault(f"{name}.{self.zone}", []).append(value)


def acme_dns(api: API, subdomain: str, username: str) -> Handler:
    """https://github.com/joohoi/acme-dns#api: the last two values of a registration."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if (request.method, request.path) != ("POST", "/update"):
            return answer(404, {"error": "not_found"})
        try:
            wanted = await request.json()
        except json.JSONDecodeError:
            return answer(400, {"error": "malformed_json_payload"})
        given = (request.headers.get("X-Api-User"), request.headers.get("X-Api-Key"), wanted.get("subdomain"))
        if given != (username, api.token, subdomain):
            return answer(401, {"error": "forbidden", "given": api.token})
        if not VALUE.fullmatch(wanted.get("txt", "")):
            return answer(400, {"error": "bad_txt"})
        api.records.setdefault(subdomain, []).append(wanted["txt"])
        api.records[subdomain] = api.records[subdomain][-2:]
        return answer(200, {"txt": wanted["txt"]})

    return handle
