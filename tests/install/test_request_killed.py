"""kill -9 of the receiver before each line that has to do with keys: never half a key, and never a lost one."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509

from certfleet.acme_ca.keys import load_key, spki_digest
from certfleet.install.answer import State, parse
from certfleet.install.bundle import Item, pack
from certfleet.install.csr import Wanted, lines
from certfleet.install.receiver import program
from certfleet.models import KeyType
from tests.install.certificates import item_for, name_of
from tests.install.killer import CLOSERS, LINES, killable, with_killer, with_trace

ABOUT_KEYS = range(LINES.index("made_here() {"), LINES.index("places() {"))
"""The lines of receiver/key.sh."""
MAKING = range(LINES.index("make_key() {"), LINES.index("describe() {"))
"""Those that are tried for the second app of a run too."""
MOVING = range(LINES.index("forward() {"), LINES.index("settle() {"))
"""Those that bring a generation into use."""
WANTED = tuple(Wanted(app, "2", KeyType.P256, (name_of(app), "192.0.2.7")) for app in ("blog", "shop"))


class Sent(NamedTuple):
    """What the receiver is asked."""

    verb: str
    data: bytes
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """A host whose web server takes everything."""

    directory: Path
    path: str

    @property
    def root(self) -> Path:
        return self.directory / "root"

    def run(self, script: str, sent: Sent) -> tuple[int, bytes]:
        """One run of the receiver, or of a copy of it."""
        file = self.directory / "receiver.sh"
        file.write_text(script)
        done = subprocess.run(
            ["sh", str(file), sent.verb, "--root", str(self.root), "--test", "true", "--reload", "true", *sent.words],
            input=sent.data,
            env={"PATH": self.path},
            capture_output=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout

    def request(self, *wanted: Wanted) -> dict[str, bytes]:
        """Requests by app."""
        _, output = self.run(program(), Sent("request", lines(wanted)))
        apps = parse(output, host="machine").apps
        assert {said.state for said in apps.values()} == {State.REQUESTED}
        return {app: base64.b64decode(said.csr) for app, said in apps.items()}

    def install(self, new: Item) -> State:
        """The certificate comes, undisturbed."""
        _, output = self.run(program(), self.sent(new))
        return parse(output, host="machine", expected=["blog"]).apps["blog"].state

    def sent(self, new: Item) -> Sent:
        """As the receiver is asked to install it."""
        return Sent("install", pack([new], str(self.root)), ("--made-here", new.app))

    def keys(self) -> dict[str, bytes]:
        """Every key that has a name, which is whole; by that name."""
        found = [*self.root.glob(".keys/*/*"), *self.root.glob("[a-z]*/[1-9]*/privkey.pem")]
        assert all(path.stat().st_mode & 0o077 == 0 for path in found)
        return {str(path.relative_to(self.root)): spki_digest(load_key(path.read_bytes())) for path in found}

    def state(self) -> tuple[str, ...]:
        """What is there, the same for the same state whatever the run's number: names, and how much is in each."""
        paths = [path for path in sorted(self.root.rglob("*")) if path.name != ".lock.owner"]
        return tuple(
            re.sub(r"incoming\.\d+", "incoming", f"{path.relative_to(self.root)} {path.lstat().st_size}")
            for path in paths
        )

    def copy(self, to: Path) -> Machine:
        """The same in another place."""
        shutil.copytree(self.directory, to, symlinks=True)
        return Machine(to, self.path)


def public(csr: bytes) -> bytes:
    return spki_digest(x509.load_der_x509_csr(csr))


def points(machine: Machine, sent: Sent, among: range) -> list[int]:
    """Those of the lines that an undisturbed run comes to; the machine is used up by it."""
    possible = killable(among)
    # A command before a function's end would change what it returns: those lines are not traced, but all tried.
    traced = {number for number in possible if LINES[number].strip() not in CLOSERS}
    trace = machine.directory / "trace"
    trace.touch()
    machine.run(with_trace(traced, trace), sent)
    reached = {int(word) for word in trace.read_text().split()}
    return [number for number in possible if number not in traced or number in reached]


@pytest.fixture(params=["dash", "busybox"])
def template(
    request: pytest.FixtureRequest, shells: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Machine:
    """A host that serves blog's first generation, whose key it has made."""
    monkeypatch.setenv("PATH", shells[request.param])
    (tmp_path / "template").mkdir()
    machine = Machine(tmp_path / "template", shells[request.param])
    csr = machine.request(Wanted("blog", "1", KeyType.P256, (name_of("blog"),)))["blog"]
    assert machine.install(item_for(csr, "blog", 1)) is State.INSTALLED
    return machine


def test_killed_while_it_makes_keys(template: Machine, tmp_path: Path) -> None:
    """Every key that has a name is whole; asked for again it is the same one, and nothing else is left behind."""
    sent, seen = Sent("request", lines(WANTED)), set[tuple[str, ...]]()

    def killed(point: tuple[int, int]) -> bool:
        machine = template.copy(tmp_path / f"{point[0]}-{point[1]}")
        status, _ = machine.run(with_killer(*point), sent)
        before = machine.keys()
        if (state := machine.state()) in seen:  # as after another kill, which has been tried
            return status == -9
        seen.add(state)
        csrs = machine.request(*WANTED)
        after = machine.keys()
        assert {name: after[name] for name in before} == before, "a key that was there is not replaced"
        assert {app: after[f".keys/{app}/2.p256"] for app in csrs} == {app: public(csr) for app, csr in csrs.items()}
        assert len(after) == 3
        assert {path.name for path in machine.root.glob(".*")} <= {".keys", ".lock"}
        return status == -9

    found = points(template.copy(tmp_path / "traced"), sent, ABOUT_KEYS)
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(
            pool.map(killed, [(line, 1) for line in found] + [(line, 2) for line in found if line in MAKING])
        )
    assert sum(outcomes) > 20  # else few of the lines had been reached


def test_killed_while_the_certificate_comes(template: Machine, tmp_path: Path) -> None:
    """The key is where it waited or where it is in use, at any time; the next run puts the certificate beside it."""
    csr = template.request(WANTED[0])["blog"]
    new, seen = item_for(csr, "blog", 2), set[tuple[str, ...]]()

    def killed(line: int) -> bool:
        machine = template.copy(tmp_path / str(line))
        status, _ = machine.run(with_killer(line, 1), machine.sent(new))
        assert public(csr) in machine.keys().values(), "the key is lost"
        if (state := machine.state()) in seen:
            return status == -9
        seen.add(state)
        assert machine.install(new) in (State.INSTALLED, State.UNCHANGED)
        assert machine.keys()["blog/2/privkey.pem"] == public(csr)
        assert not list(machine.root.glob(".keys/blog/*")), "its key waits no longer"
        return status == -9

    traced = template.copy(tmp_path / "traced")
    found = points(traced, traced.sent(new), ABOUT_KEYS)
    other = template.copy(tmp_path / "moving")
    found += points(other, other.sent(new), MOVING)
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(killed, found))
    assert sum(outcomes) > 15
