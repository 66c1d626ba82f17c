"""Whether a person, or a script, says that a host key is the host's."""

from __future__ import annotations

import io

import pytest

from certfleet.cli.trust import approver
from certfleet.demo.ports import free_port
from certfleet.errors import UsageError
from certfleet.install.pinning import Shown
from tests.cli.conftest import Door

FIRST, SECOND = Shown("ssh-ed25519", "SHA256:first"), Shown("rsa-sha2-512", "SHA256:second")


class Terminal(io.StringIO):
    """Somebody types this."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_person_is_asked(answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """They see the fingerprint and how to compare it; a no changes nothing."""
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    approve = approver(())
    if answer == "y":
        assert approve("root@web1", (FIRST, SECOND)) == FIRST
    else:
        with pytest.raises(UsageError, match="nothing was changed"):
            approve("root@web1", (FIRST, SECOND))
    said = capsys.readouterr()
    assert "root@web1 shows the host key ssh-ed25519 SHA256:first" in said.err
    assert "ssh-keygen -lf" in said.err
    assert said.out.strip() == ""


def test_a_script_gives_them_in_order() -> None:
    """One for each machine on the way; any type of key will do, and padding does not count."""
    approve = approver(["SHA256:second=", "SHA256:first"])
    assert approve("jump@bastion", (FIRST, SECOND)) == SECOND
    assert approve("root@web1", (FIRST, SECOND)) == FIRST
    with pytest.raises(UsageError, match="give --fingerprint SHA256:first"):
        approve("root@web2", (FIRST, SECOND))


def test_another_key_is_refused_with_those_shown() -> None:
    """Whoever mistyped sees it."""
    with pytest.raises(UsageError, match=r"'SHA256:third' is none that root@web1 shows: .*first.*second"):
        approver(["SHA256:third"])("root@web1", (FIRST, SECOND))


@pytest.mark.parametrize(
    "words",
    [
        ("--ssh", "web1"),
        ("--ssh", "root@web1:0"),
        ("--ssh", "root@-oProxyCommand=id"),
        ("--ssh", "root@192.0.2.1", "--jump", "bastion"),
        ("--fingerprint", "SHA256:x"),
        ("--jump", "root@192.0.2.1"),
    ],
)
def test_where_to_log_in(door: Door, words: tuple[str, ...]) -> None:
    """What cannot be logged in to is refused before anybody is asked."""
    door.refused("host", "add", "web1", *words)


def test_a_host_that_does_not_answer_is_not_added(door: Door) -> None:
    """Its key is not known, so neither is the host."""
    said = door.run("host", "add", "web1", "--ssh", f"root@127.0.0.1:{free_port()}", "--fingerprint", "SHA256:x")
    assert (said.status, said.out) == (1, "")
    assert "cannot be reached" in said.err
    assert door.everything() == {}


def test_nobody_is_asked_for_the_key_of_what_cannot_be(fleet: Door) -> None:
    """A server that there is not, a name that is taken: refused without a connection (nobody listens there)."""
    there = ("--ssh", f"root@127.0.0.1:{free_port()}", "--fingerprint", "SHA256:x")
    assert fleet.refused("host", "add", "web9", "--server", "foo", *there).startswith("server: 'foo' is")
    assert "is there already" in fleet.refused("host", "add", "web1", *there)


def test_this_machine_has_nothing_to_trust_or_set_up(fleet: Door) -> None:
    """The local driver needs neither key nor set-up."""
    fleet.refused("host", "trust", "web1")
    fleet.refused("host", "setup", "web1")
