"""Settings: where they come from, which wins, and one sentence for what is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from certfleet.broker import broker_url
from certfleet.errors import ConfigurationError
from certfleet.settings import default_home, ensure_home, load_settings


@pytest.fixture(autouse=True)
def home(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own and no other setting."""
    for name in list(os.environ):
        if name.startswith("CERTFLEET_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CERTFLEET_HOME", str(short_directory))
    return short_directory


def test_where_the_state_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """CERTFLEET_HOME, else /var/lib/certfleet as root, else the XDG state directory."""
    monkeypatch.setenv("CERTFLEET_HOME", "~/fleet")
    assert load_settings().home == Path.home() / "fleet"
    monkeypatch.chdir("/tmp")
    monkeypatch.setenv("CERTFLEET_HOME", "fleet")
    assert load_settings().home == Path("/tmp/fleet")
    monkeypatch.delenv("CERTFLEET_HOME")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_home() == Path("/var/lib/certfleet")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert default_home() == Path("/xdg/certfleet")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_home() == Path.home() / ".local/state/certfleet"


def test_the_environment_wins_over_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """certfleet.toml in the state directory, then CERTFLEET_* over it."""
    (home / "certfleet.toml").write_text('workers = 3\nthreads = 5\nnameservers = ["192.0.2.53"]\n')
    monkeypatch.setenv("CERTFLEET_WORKERS", "7")
    found = load_settings()
    assert (found.workers, found.threads, found.nameservers) == (7, 5, ["192.0.2.53"])


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("", []),
        ("[]", []),
        ("192.0.2.53", ["192.0.2.53"]),
        ("192.0.2.53:5353, 2001:db8::53", ["192.0.2.53:5353", "2001:db8::53"]),
        ("[2001:db8::53]:5353", ["[2001:db8::53]:5353"]),
        ('["192.0.2.53:5353"]', ["192.0.2.53:5353"]),
    ],
)
def test_lists(monkeypatch: pytest.MonkeyPatch, text: str, servers: list[str]) -> None:
    """With commas or blanks between the words, or as JSON."""
    monkeypatch.setenv("CERTFLEET_NAMESERVERS", text)
    assert load_settings().nameservers == servers


@pytest.mark.parametrize(
    ("text", "address"),
    [("192.0.2.1", "192.0.2.1"), ("2001:DB8:0::1", "2001:db8::1"), ("::ffff:192.0.2.1", "192.0.2.1")],
)
def test_an_egress_address_has_one_spelling(monkeypatch: pytest.MonkeyPatch, text: str, address: str) -> None:
    """Machines that share it count together, however it was written."""
    assert load_settings().egress_address is None
    monkeypatch.setenv("CERTFLEET_EGRESS_ADDRESS", text)
    assert load_settings().egress_address == address


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKERS", "0"),
        ("WORKERS", "many"),
        ("THREADS", "65"),
        ("BATCH", "0"),
        ("LEASE", "-1"),
        ("LEASE", "nan"),
        ("PREFIX", "no colon"),
        ("PREFIX", "glob*:"),
        ("RESPONDER_PORT", "99999"),
        ("FLOWER_PORT", "-1"),
        ("LOG_LEVEL", "LOUD"),
        ("NAMESERVERS", "one.one.one.one"),
        ("NAMESERVERS", "1.1.1.1:0"),
        ("NAMESERVERS", "[1.1.1.1"),
        ("NAMESERVERS", '["1.1.1.1"'),
        ("ZONES", "Zone/A"),
        ("EGRESS_ADDRESS", "egress.example.com"),
        ("EGRESS_ADDRESS", "192.0.2.0/24"),
        ("EGRESS_ADDRESS", "fe80::1%eth0"),
        ("EGRESS_ADDRESS", ""),
        ("REDIS_URL", "http://geheim@x"),
        ("REDIS_URL", "redis://"),
        ("REDIS_URL", "unix://relative"),
        ("REDIS_URL", "redis://x:0"),
        ("REDIS_URL", "redis://geheim:geheim@[x"),
    ],
)
def test_a_bad_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """One line that names the variable, and never a password."""
    monkeypatch.setenv(f"CERTFLEET_{name}", value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    said = str(refused.value)
    assert said.startswith(f"CERTFLEET_{name}: ")
    assert "\n" not in said
    assert "geheim" not in said


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("workers = 0", "workers in {file} (CERTFLEET_WORKERS): "),
        ("wrokers = 3", "wrokers in {file} (CERTFLEET_WROKERS): is not a setting"),
        ("workers =", "{file} is not TOML: "),
        ("\udcff", "{file} cannot be read: not UTF-8"),
    ],
)
def test_a_bad_file(home: Path, text: str, sentence: str) -> None:
    """The sentence names the file and, where there is one, the setting."""
    file = home / "certfleet.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert str(refused.value).startswith(sentence.format(file=file))


NAMES = ["REDIS_URL", "PREFIX", "NAMESERVERS", "WORKERS", "LEASE", "ZONES", "LOG_LEVEL", "VAULT_KEY", "RESPONDER_PORT"]


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(NAMES),
    value=st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
    | st.text('redis:/@1.[]", ', max_size=20),
)
def test_any_text_is_a_setting_or_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Nothing but ConfigurationError comes out."""
    with monkeypatch.context() as patch:
        patch.setenv(f"CERTFLEET_{name}", value)
        try:
            load_settings()
        except ConfigurationError as error:
            assert str(error).startswith(f"CERTFLEET_{name}: ")  # noqa: PT017  both ways are the promise


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by repr, which is what logs and tracebacks show."""
    monkeypatch.setenv("CERTFLEET_REDIS_URL", "rediss://fleet:geheim@redis.example:6380/0")
    found = load_settings()
    assert "geheim" not in repr(found) + str(found)
    assert "geheim" in broker_url(found)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rediss://u:p@h:1/0", "rediss://u:p@h:1/0?ssl_cert_reqs=required"),
        ("rediss://h/0?ssl_ca_certs=/ca.pem", "rediss://h/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required"),
        ("rediss://h/0?ssl_cert_reqs=none", "rediss://h/0?ssl_cert_reqs=none"),
        ("redis://h/0", "redis://h/0"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock"),
    ],
)
def test_the_broker_verifies_too(monkeypatch: pytest.MonkeyPatch, url: str, expected: str) -> None:
    """TLS is verified by Celery as by ourselves, unless the URL says otherwise."""
    monkeypatch.setenv("CERTFLEET_REDIS_URL", url)
    assert broker_url(load_settings()) == expected


def test_a_home_that_cannot_be(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the way: the sentence names the directory and the variable."""
    (home / "file").touch()
    monkeypatch.setenv("CERTFLEET_HOME", str(home / "file" / "home"))
    with pytest.raises(ConfigurationError, match="cannot be made: Not a directory; set CERTFLEET_HOME"):
        ensure_home(load_settings())
