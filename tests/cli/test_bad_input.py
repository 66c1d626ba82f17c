"""What bad input gets: one sentence with the field, the value and what would be right, status 2, nothing changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import PRIVATE_CA, Door

GOOD = {"--domain": "shop.example.com", "--host": "web1", "--email": "ops@example.com"}


def add(name: str = "shop", **changes: str | None) -> list[str]:
    """The words of `app add` with some of them changed or, None, left out."""
    options = GOOD | {f"--{key.replace('_', '-')}": value for key, value in changes.items()}
    return ["app", "add", name, *(word for key, value in options.items() if value is not None for word in (key, value))]


@pytest.mark.parametrize(
    "name",
    ["under_score.example.com", "-a.example.com", "a..example.com", "com", "", "exa mple.com",
     "a" * 64 + ".example.com",
     "1.2.3.4.", "192.168.1", "0.0.0.0", "255.255.255.255", "::ffff:255.255.255.255",
     "ff02::1", "fe80::1%eth0", "[1.2.3.4]", "1.2.3.4/24", "::g", "*.1.2.3.4",
     "https://example.com/", "*.*.example.com", "foo.*.example.com",
     "xn--zzzzzz9.example.com", "a.example.com;", "b\u0000.example.com", "\u202eexample.com"],
)  # fmt: skip
def test_a_name_that_is_no_dns_name(fleet: Door, name: str) -> None:
    """The sentence has the name, and one that would be right."""
    said = fleet.refused(*add(domain=name))
    assert said.startswith("domain: ")
    assert repr(name) in said
    assert "give a" in said


@pytest.mark.parametrize("name", ["db.internal", "www.example.test", "printer.localdomain", "a.co.uk.invalid", "co.uk"])
def test_a_public_ca_gets_no_private_name(fleet: Door, bundle: Path, name: str) -> None:
    """A public CA would refuse it; a private one, a URL with its bundle, may certify it."""
    for ca in (None, "letsencrypt-staging", PRIVATE_CA):
        said = fleet.refused(*add(domain=name, ca=ca))
        assert said.startswith(f"domain: {name!r} has no public suffix")
        assert "--ca-bundle" in said
    fleet.done(*add(domain=name, ca=PRIVATE_CA, ca_bundle=str(bundle)))


@pytest.mark.parametrize("address", ["1.1.1.1", "[2606:4700:4700::1111]"])
def test_lets_encrypt_certifies_addresses_by_one_profile_only(fleet: Door, address: str) -> None:
    """Said before an order is wasted, with the profile to set; as soon as it is set, the address is welcome."""
    for profile in (None, "classic", "tlsserver"):
        said = fleet.refused(*add(domain=address, profile=profile))
        assert said.startswith(f"domain: {address!r} is an IP address")
        assert "by the profile shortlived only" in said
    fleet.done(*add(domain=address, profile="shortlived"))
    fleet.refused("set", "--app", "shop", "profile=")


@pytest.mark.parametrize("address", ["192.168.1.1", "10.0.0.1", "127.0.0.1", "::1", "fd00::1", "192.0.2.1"])
def test_a_public_ca_gets_no_private_address(fleet: Door, bundle: Path, address: str) -> None:
    """A public CA would refuse it whatever the profile; a private one may certify it."""
    said = fleet.refused(*add(domain=address, profile="shortlived"))
    assert said.startswith(f"domain: {address!r} is not a public address")
    assert "--ca-bundle" in said
    fleet.done(*add(domain=address, ca=PRIVATE_CA, ca_bundle=str(bundle)))


def test_more_names_than_the_profile_takes(fleet: Door) -> None:
    """Twenty-six are too many for tlsserver; a profile that nobody knows here is the CA's affair."""
    names = [word for n in range(26) for word in ("--domain", f"a{n}.example.com")]
    words = ["app", "add", "shop", "--host", "web1", "--email", "ops@example.com", *names]
    said = fleet.refused(*words, "--profile", "tlsserver")
    assert said == (
        "domain: 26 names are too many for the profile tlsserver of letsencrypt: at most 25 (classic takes more)"
    )
    fleet.done(*words, "--profile", "newer-than-us")


@pytest.mark.parametrize("setting", ["profile=two words", "profile=" + "a" * 65, "profile=ü", "preferred-chain= x",
                                     "preferred-chain=a\nb", "preferred-chain=" + "a" * 201])  # fmt: skip
def test_a_profile_or_issuer_that_cannot_be(fleet: Door, setting: str) -> None:
    """The sentence names the property and says what would be right."""
    name = setting.partition("=")[0]
    assert fleet.refused("set", setting).startswith(f"{name}: ")


def test_an_app_without_domains_hosts_or_email(fleet: Door) -> None:
    """Refused before anything is touched; the sentence says what to add."""
    for field, example in (("domain", "--domain blog.example.com"), ("host", "--host web1"), ("email", "--email ops@")):
        left_out: dict[str, str | None] = {field: None}
        said = fleet.refused(*add("shop", **left_out))
        assert said.startswith(f"{field}: ")
        assert example in said


def test_an_app_that_lost_its_email(fleet: Door) -> None:
    """The address came from the global property; `enable` refuses as `app add` does."""
    fleet.done("set", "email=ops@example.com")
    fleet.done(*add(email=None))
    fleet.done("set", "email=")
    said = fleet.refused("enable", "shop")
    assert said.startswith("email: app shop has none")
    assert "certfleet set email=" in said


def test_an_enabled_app_does_not_lose_its_email(fleet: Door) -> None:
    """What an enabled app relies on is not taken away; the sentence names the app."""
    fleet.done("set", "email=ops@example.com")
    fleet.done(*add(email=None))
    fleet.done("enable", "shop")
    assert "shop" in fleet.refused("set", "email=")
    fleet.done("set", "email=other@example.com")


def test_an_unknown_host(fleet: Door) -> None:
    """The sentence says how to make it known."""
    assert fleet.refused(*add(host="web9")) == "host: 'web9' is not known: `certfleet host add web9` first"
    assert "web9" in fleet.refused("app", "change", "blog", "--host", "web9")
    fleet.refused("host", "show", "web9")
    fleet.refused("host", "rm", "web9")
    assert fleet.refused("snippet", "blog", "--host", "web9") == "host: 'web9' does not serve blog: it is on web1"


@pytest.mark.parametrize("words", [["enable"], ["enable", "--adopt"], ["disable"], ["renew"], ["ls"], ["info"],
                                   ["snippet"],
                                   ["app", "show"], ["app", "rm"], ["app", "change", "--host", "web1"],
                                   ["set", "port=1", "--app"], ["properties", "--app"]])  # fmt: skip
def test_an_unknown_app(fleet: Door, words: list[str]) -> None:
    """Every command says so in the same sentence."""
    assert fleet.refused(*words, "nobody") == "app: 'nobody' is not known: `certfleet app list` shows every app"


@pytest.mark.parametrize(
    "ca",
    ["http://ca.example.com/directory", "ftp://x", "letsencript", "https://", "https://u:p@ca.example.com/", "//x"],
)
def test_a_ca_that_is_neither_preset_nor_https(fleet: Door, ca: str) -> None:
    """The sentence has the value and names the presets."""
    for words in (add(ca=ca), ["set", f"ca={ca}"], ["set", f"ca={ca}", "--app", "blog"]):
        said = fleet.refused(*words)
        assert said.startswith(f"ca: {ca!r} ")
        assert "https URL" in said
        assert "letsencrypt-staging" in said


def test_a_wildcard_with_http01(fleet: Door) -> None:
    """The sentence has the wildcard as it was typed, also after names that are given twice."""
    words = [*add(domain="WWW.example.com"), "--domain", "www.example.com", "--domain", "*.Example.com"]
    assert fleet.refused(*words).startswith("domain: '*.Example.com' is a wildcard, which http-01 cannot prove")


@pytest.mark.parametrize(
    ("setting", "right"),
    [
        ("nonsense=1", "graceperiod"),
        ("nonsense=", "graceperiod"),
        ("graceperiod", "NAME=VALUE"),
        ("graceperiod=soon", "30d"),
        ("graceperiod=0d", "30d"),
        ("graceperiod=-1d", "30d"),
        ("graceperiod=30", "30d"),
        ("graceperiod=9999999d", "3650d at most"),
        ("dns-propagation=3651d", "3650d at most"),
        ("persist-for=9999999d", "3650d at most"),
        ("park-after=9999999d", "3650d at most"),
        ("first-issue=9999999d", "3650d at most"),
        ("key-type=dsa", "p256"),
        ("challenge=dns-02", "http-01"),
        ("self-check=maybe", "on, off"),
        ("adopt=yes", "on, off"),
        ("http-port=0", "1 to 65535"),
        ("http-port=8080", "private CAs"),
        ("port=65536", "1 to 65535"),
        ("port=" + "9" * 5000, "1 to 65535"),
        ("port=٤٤٣", "1 to 65535"),
        ("listen=example.com", "IP address"),
        ("email=nobody", "ops@example.com"),
        ("email=a@b", "ops@example.com"),
        ("email=a..b@example.com", "ops@example.com"),
        ("email=.a@example.com", "ops@example.com"),
        ("email=ops@exämple.com", "ops@xn--exmple-cua.com"),
        ("responder=127.0.0.1:99999", "1 to 65535"),
        ("email=a b@example.com", "ops@example.com"),
        ("email=a?cc=b@example.com", "ops@example.com"),
        ("email=a@x.example.com,b@x.example.com", "ops@example.com"),
    ],
)
def test_a_property_and_its_bad_value(fleet: Door, setting: str, right: str) -> None:
    """On an app: field, value, and what would be right; what stands beside it is not set either."""
    said = fleet.refused("set", "--app", "blog", "key-type=p384", setting)
    assert said.startswith(("property: ", f"{setting.partition('=')[0]}: "))
    name, _, value = setting.partition("=")
    assert repr(name if "nonsense" in name or not value else value) in said
    assert right in said


@pytest.mark.parametrize("name", ["", "Blog", "-blog", "a/b", "../etc", "a" * 64, "blög", "a b", "a\n"])
def test_a_bad_name_for_an_app_or_host(fleet: Door, name: str) -> None:
    """Names become file names and keys: the sentence says which characters they have."""
    for kind, words in (("app", ["app", "add", *add()[3:], "--", name]), ("host", ["host", "add", "--", name])):
        said = fleet.refused(*words)
        assert said.startswith(f"{kind}: {name!r} is not a name")
        assert "a-z, 0-9" in said


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--root", "relative"], "root"),
        (["--root", "/a/../etc"], "root"),
        (["--root", "/a;return 200"], "root"),
        (["--root", "/a\n"], "root"),
        (["--address", "not an address"], "address"),
        (["--address", ""], "address"),
        (["--test-command", "nginx 'unbalanced"], "test-command"),
        (["--reload-command", '"'], "reload-command"),
    ],
)
def test_a_host_that_cannot_be(door: Door, words: list[str], field: str) -> None:
    """Roots become lines of the web server's configuration, commands are run: both are checked at the door."""
    assert door.refused("host", "add", "web1", *words).startswith(f"{field}: {words[1]!r} is")


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--server", "iis"], "server"),
        (["--server", "files"], "server"),
        (["--server", "apache", "--key", "/etc/x.key"], "server"),
        (["--webroot", "relative"], "webroot"),
        (["--webroot", "/var/{app}"], "webroot"),
        (["--key", "/etc/../shadow", "--server", "files"], "key"),
        (["--combined", "/a b", "--server", "files"], "combined"),
        (["--fullchain", "/{app}/{app}", "--server", "files"], "fullchain"),
        (["--owner", "-R", "--server", "files"], "owner"),
        (["--file-mode", "0666", "--server", "files"], "file-mode"),
        (["--key-mode", "0644", "--server", "files"], "key-mode"),
    ],
)
def test_a_server_that_cannot_be(door: Door, words: list[str], field: str) -> None:
    """Places, owner and modes are checked at the door too; a path leads where it says, a key is not for everybody."""
    commands = [] if words == ["--server", "files"] else ["--test-command", "true", "--reload-command", "true"]
    assert door.refused("host", "add", "web1", *words, *commands).startswith(f"{field}: ")


def test_dokku_is_a_server_by_ssh(door: Door) -> None:
    """It stands in the list, and it is told how it is logged in to."""
    assert door.refused("host", "add", "web1", "--server", "doku").endswith("nginx, apache, haproxy, files, dokku")
    said = door.refused("host", "add", "web1", "--server", "dokku")
    assert said == "ssh: say where to log in: --ssh dokku@192.0.2.1"
    said = door.refused("host", "add", "web1", "--jump", "root@192.0.2.9")
    assert said == "ssh: say where to log in: --ssh root@192.0.2.1"


def test_snippets_of_every_way(fleet: Door) -> None:
    """The lines follow the properties; what a server cannot do is said, with what to set."""
    fleet.done("host", "add", "lb1", "--server", "haproxy")
    fleet.done(*add("shop"))
    assert "proxy_pass http://127.0.0.1:8402;" in fleet.done("snippet", "shop").out
    fleet.done("set", "responder=http://acme.example.com")
    assert "return 302 http://acme.example.com$request_uri;" in fleet.done("snippet", "shop").out
    fleet.done("set", "challenge-via=stateless")
    assert "challenges.d/shop[.]conf;" in fleet.done("snippet", "shop").out
    fleet.done("app", "change", "shop", "--host", "lb1")
    assert "http-request return status 200" in fleet.done("snippet", "shop").out
    fleet.done("set", "challenge-via=webroot")
    refused = fleet.run("snippet", "shop")
    assert (refused.status, "challenge-via" in refused.err) == (1, True)
    for bad in ("challenge-via=pigeon", "responder=a b", "responder=http://x/;"):
        fleet.refused("set", bad)


def test_a_bundle_that_is_none(fleet: Door, short_directory: Path) -> None:
    """Missing, a directory, binary, other text: the sentence has the field; `set` and `app add` agree."""
    binary, text = short_directory / "binary", short_directory / "text"
    binary.write_bytes(b"\xff\xfe\x00")
    text.write_text("this is no certificate\n")
    for path in (short_directory / "missing", short_directory, binary, text):
        for words in (add(ca=PRIVATE_CA, ca_bundle=str(path)), ["set", f"ca={PRIVATE_CA}", f"ca-bundle={path}"]):
            said = fleet.refused(*words)
            assert said.startswith("ca-bundle: ")
            assert "PEM" in said


def test_a_bundle_where_none_belongs(fleet: Door, bundle: Path) -> None:
    """A publicly known CA with a private trust store would never be reached: said before, not after."""
    said = fleet.refused(*add(ca_bundle=str(bundle)))
    assert said.startswith("ca-bundle: letsencrypt needs none")
    assert "--ca" in said


def test_a_bundle_that_an_app_needs(fleet: Door, bundle: Path) -> None:
    """Without its bundle a private CA counts as a public one, which cannot certify the name."""
    fleet.done(*add(domain="db.internal", ca=PRIVATE_CA, ca_bundle=str(bundle)))
    assert fleet.refused("set", "--app", "shop", "ca-bundle=").startswith("domain: 'db.internal' has no public suffix")


def test_force_without_apps(fleet: Door) -> None:
    """A new certificate for every app at once would use up the CA's limits."""
    assert fleet.refused("renew", "--force").startswith("force: name the apps")


def test_what_is_there_already(fleet: Door) -> None:
    """Adding again overwrites nothing, and a host with apps stays."""
    assert "is there already" in fleet.refused(*add("blog"))
    assert "is there already" in fleet.refused("host", "add", "web1", "--root", "/elsewhere")
    assert "still serves 1 apps (blog)" in fleet.refused("host", "rm", "web1")


def test_words_that_typer_refuses(fleet: Door) -> None:
    """Unknown commands and options end with status 2 too, and change nothing."""
    before = fleet.everything()
    for words in (["nonsense"], ["enable"], ["enable", "blog", "--nonsense"], ["enable", "blog", "--timeout", "x"]):
        said = fleet.run(*words)
        assert said.status == 2
        assert said.out == ""
        assert said.err
    assert fleet.everything() == before
