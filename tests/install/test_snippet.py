"""What the lines for a site say when it is one of an IP address."""

from __future__ import annotations

import pytest

from certfleet.install.snippet import snippet
from certfleet.models import App, Host


@pytest.mark.parametrize("server", ["nginx", "apache", "haproxy"])
def test_a_site_of_an_address_has_to_be_the_default(server: str) -> None:
    """RFC 6066 §3: no server name comes with an address. nginx is told it in brackets, as Host headers have it."""
    app = App("dns", ("203.0.113.7", "dns.example.com", "2001:db8::7"), ("web1",))
    text = snippet(app, Host("web1", preset=server), "127.0.0.1", 8402)
    assert "203.0.113.7 or [2001:db8::7] names no server" in text
    assert ("# server_name 203.0.113.7 [2001:db8::7];" in text) is (server == "nginx")
    assert all(line.startswith("#") for line in text.splitlines()[:3])


@pytest.mark.parametrize("server", ["nginx", "apache", "haproxy", "files"])
def test_a_site_of_names_is_told_nothing_about_it(server: str) -> None:
    """Only who has an address has to know."""
    app = App("blog", ("blog.example.com",), ("web1",))
    assert "names no server" not in snippet(app, Host("web1", preset=server), "127.0.0.1", 8402)


@pytest.mark.parametrize("server", ["nginx", "apache", "haproxy", "files"])
@pytest.mark.parametrize("via", ["responder", "webroot", "stateless"])
def test_names_that_are_proven_by_dns_need_nothing_on_port_80(server: str, via: str) -> None:
    """No line for challenges, whatever `challenge-via` says for others; the certificate's lines are the same."""
    app, host = App("blog", ("*.example.com",), ("web1",)), Host("web1", preset=server)
    text = snippet(app, host, "127.0.0.1", 8402, method="dns-01", via=via)
    assert text.startswith("# certfleet: *.example.com\n# The app's names are proven by dns-01: nothing has to be")
    assert not any(word in text for word in ("acme-challenge", "8402", "section 8.3", "backend", "port 80,", ":80>"))
    by_http = snippet(app, host, "127.0.0.1", 8402)
    assert "section 8.3" in by_http
    assert by_http.endswith(text.partition("port 80.\n")[2])
    assert text.partition("port 80.\n")[2]


def test_dokku_needs_nothing_at_all_then() -> None:
    """Its certificate goes by a command."""
    app, host = App("blog", ("blog.example.com",), ("web1",)), Host("web1", driver="dokku")
    text = snippet(app, host, "127.0.0.1", 8402, method="dns-01")
    assert text.count("\n") == 2
    assert "location" not in text
    assert "location ^~" in snippet(app, host, "127.0.0.1", 8402)
