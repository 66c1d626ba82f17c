"""The driver for Dokku: its own commands over SSH, as the user `dokku`, with a key that `dokku ssh-keys:add` let in.

Dokku keeps one certificate for each app (tls/server.crt, tls/server.key in the app's directory), replaces it in place,
and tests and reloads its nginx for each: so there is one reload for each certificate, and nothing to go back to on the
host. What stood there is read before it is replaced (`certs:show`, Dokku 0.21.0 and newer) and kept in this process
until it is known that the new one is served.

What is ours, and which generation, says a line before the certificate (bundle.stamp): it goes where the certificate
goes. What lacks it is foreign.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from certfleet.errors import InstallError
from certfleet.install.answer import Answer, AppAnswer, Point, Report, State
from certfleet.install.bundle import Item
from certfleet.install.challenge import Answerer
from certfleet.install.csr import Wanted
from certfleet.install.drivers.connections import Connections, Finished
from certfleet.install.stamp import Stamp, fits, read_stamp, stamped
from certfleet.models import Host

HELD = 600.0
"""Seconds that a replaced certificate and its key are kept: longer than a step has to prove the new one."""
ANSWERS_LENGTH = 500  # characters of what Dokku says that are kept for a person


@dataclass(frozen=True, slots=True)
class Found:
    """What Dokku has for an app."""

    exists: bool
    """The app."""
    certificate: bytes = b""
    """server.crt; empty: none."""
    stamp: Stamp | None = None
    """None with a certificate: it is not ours."""

    @property
    def generation(self) -> int:
        """Ours; 0 for none and for a foreign one."""
        return self.stamp.generation if self.stamp else 0

    @property
    def serial(self) -> str:
        """Of ours."""
        return self.stamp.serial if self.stamp else ""


@dataclass(frozen=True, slots=True)
class Held:
    """What stood there before, to go back to; an empty certificate: nothing."""

    generation: int
    serial: str
    certificate: bytes
    private_key: bytes = field(repr=False)


class Dokku:
    """Over the connections of this process."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._held: dict[tuple[str, str], Held] = {}

    # ------------------------------------------------------------------------------------------ certificates

    async def install(self, host: Host, items: Sequence[Item]) -> Answer:
        """Put the items into place, one after the other. Raises HostUnreachable or InstallError."""
        apps: dict[str, AppAnswer] = {}
        todo: list[tuple[Item, Found]] = []
        for item in items:
            found = await self._look(host, item.app)
            answer = _decided(item, found)
            if answer is None:
                todo.append((item, found))
            else:
                apps[item.app] = answer
        if todo and (broken := await self._broken(host)):
            apps |= {item.app: _stands(State.BROKEN_BEFORE, found, broken) for item, found in todo}
            return Answer(version=1, reloads=0, apps=apps)
        reloads = 0
        for item, found in todo:
            apps[item.app] = await self._replace(host, item, found)
            reloads += apps[item.app].state is State.INSTALLED
        return Answer(version=1, reloads=reloads, apps=apps)

    async def rollback(self, host: Host, previous: Mapping[str, int]) -> Answer:
        """Put back what the last install replaced; 0: nothing of ours. Raises HostUnreachable or InstallError."""
        apps: dict[str, AppAnswer] = {}
        reloads = 0
        for app, generation in previous.items():
            found = await self._look(host, app)
            held = self._held.pop((host.name, app), None)
            if found.generation == generation and generation:
                apps[app] = _stands(State.UNCHANGED, found)
            elif not found.exists or held is None or held.generation != generation:
                apps[app] = _stands(
                    State.FAILED,
                    found,
                    "what was there before is not at hand any more: Dokku keeps one certificate, and we keep the one "
                    f"before for {HELD / 60:.0f} minutes in the worker that replaced it",
                )
            elif refusal := await self._restore(host, app, held):
                apps[app] = _stands(State.FAILED, found, refusal)
            else:
                reloads += 1
                apps[app] = AppAnswer(State.ROLLED_BACK, generation, found.generation, held.serial)
        return Answer(version=1, reloads=reloads, apps=apps)

    async def status(self, host: Host) -> Answer:
        """What Dokku has for each of its apps. Raises HostUnreachable or InstallError."""
        report = await self._ask(host, "certs:report")
        if report.status != 0:
            raise InstallError(f"host {host.name}: `dokku certs:report` failed: {_said(report)}")
        apps: dict[str, AppAnswer] = {}
        for app, enabled in _report(report.output).items():
            if not enabled:
                continue
            found = await self._shown(host, app)
            apps[app] = _stands(State.CURRENT if found.stamp else State.FOREIGN, found)
        return Answer(version=1, reloads=0, apps=apps)

    async def remove(self, host: Host, apps: Sequence[str]) -> Answer:
        """Take ours away: the app is plain HTTP again. Raises HostUnreachable or InstallError."""
        answers: dict[str, AppAnswer] = {}
        reloads = 0
        for app in apps:
            found = await self._look(host, app)
            if not found.certificate:
                answers[app] = AppAnswer(State.REMOVED, 0)
                continue
            if found.stamp is None:
                answers[app] = _stands(State.FOREIGN, found, f"the certificate of {app} was not put there by certfleet")
                continue
            done = await self._ask(host, f"certs:remove {app}")
            reloads += done.status == 0
            if done.status == 0:
                answers[app] = AppAnswer(State.REMOVED, 0, found.generation)
            else:
                answers[app] = _stands(State.FAILED, found, _said(done))
        return Answer(version=1, reloads=reloads, apps=answers)

    async def cleanup(self, host: Host, keep: int) -> Answer:
        """There is nothing to clean: Dokku keeps no old generations."""
        del host, keep
        return Answer(version=1, reloads=0, apps={})

    async def check(self, host: Host, *, reload: bool = False) -> Report:
        """What works there, point by point; Dokku has no reload of its own to try. Raises HostUnreachable."""
        del reload
        version = await self._ask(host, "version")
        report = await self._ask(host, "certs:report")
        shown = await self._ask(host, "certs:show")
        broken = await self._broken(host)
        points = (
            Point("dokku", version.status == 0, _said(version)),
            Point("certificates", report.status == 0, "certs:report answers" if not report.status else _said(report)),
            Point(
                "going back",
                not _lacks(shown),
                "certs:show answers" if not _lacks(shown) else "there is no certs:show; Dokku 0.21.0 and newer have it",
            ),
            Point("configuration test", not broken, broken or "nginx:validate-config passes"),
        )
        return Report(version=1, release="", time=int(time.time()), root="/home/dokku", points=points)

    # ------------------------------------------------------------------------------------------ challenges

    async def publish(self, host: Host, answers: Mapping[str, str]) -> None:
        """Dokku's user cannot write files for its nginx. Raises InstallError."""
        del answers
        raise InstallError(_no_challenges(host))

    async def withdraw(self, host: Host, tokens: Sequence[str]) -> None:
        """Nothing was put there."""
        del host, tokens

    async def snippet(self, host: Host, apps: Sequence[Answerer]) -> Answer:
        """Dokku's user cannot write files for its nginx. Raises InstallError."""
        del apps
        raise InstallError(_no_challenges(host))

    async def request(self, host: Host, wanted: Sequence[Wanted]) -> Answer:
        """Dokku takes a certificate with its key or not at all. Raises InstallError."""
        del wanted
        raise InstallError(f"host {host.name}: Dokku makes no keys that stay there; set key-on-host=off")

    # ------------------------------------------------------------------------------------------ one app

    async def _look(self, host: Host, app: str) -> Found:
        """What Dokku has for an app, from certs:report and certs:show."""
        report = await self._ask(host, f"certs:report {app} --ssl-enabled")
        match report.output.strip():
            case b"true" if report.status == 0:
                return await self._shown(host, app)
            case b"false" if report.status == 0:
                return Found(exists=True)
            case _ if b"does not exist" in report.complaints:
                return Found(exists=False)
            case _:
                raise InstallError(f"host {host.name}: `dokku certs:report {app}` failed: {_said(report)}")

    async def _shown(self, host: Host, app: str) -> Found:
        shown = await self._ask(host, f"certs:show {app} crt")
        if shown.status != 0 or not shown.output:
            raise InstallError(
                f"host {host.name}: `dokku certs:show {app} crt` failed, and without it nobody knows whose certificate "
                f"is there (it came with Dokku 0.21.0): {_said(shown)}"
            )
        return Found(exists=True, certificate=shown.output, stamp=read_stamp(shown.output))

    async def _replace(self, host: Host, item: Item, found: Found) -> AppAnswer:
        held = await self._hold(host, item.app, found)
        if held is None:
            return _stands(State.FAILED, found, f"`dokku certs:show {item.app} key` failed: there were no way back")
        added = await self._ask(host, f"certs:add {item.app}", _archive(stamped(item), item.private_key))
        if added.status == 0:
            self._keep(host, item.app, held)
            return AppAnswer(State.INSTALLED, item.generation, found.generation, item.serial)
        # Dokku has replaced the files by now, and nginx has what it had.
        undone = await self._restore(host, item.app, held)
        also = f"; putting the old one back failed too: {undone}" if undone else ""
        return _stands(State.FAILED, found, f"{_said(added)}{also}")

    async def _hold(self, host: Host, app: str, found: Found) -> Held | None:
        """What to go back to; None when Dokku does not tell."""
        if not found.certificate:
            return Held(0, "", b"", b"")
        key = await self._ask(host, f"certs:show {app} key")
        if key.status != 0 or b"PRIVATE KEY-----" not in key.output:
            return None
        return Held(found.generation, found.serial, found.certificate, key.output)

    def _keep(self, host: Host, app: str, held: Held) -> None:
        place = (host.name, app)
        self._held[place] = held

        def forget() -> None:
            if self._held.get(place) is held:
                del self._held[place]

        asyncio.get_running_loop().call_later(HELD, forget)

    async def _restore(self, host: Host, app: str, held: Held) -> str:
        """Put back what stood there; why that failed, or nothing."""
        if held.certificate:
            done = await self._ask(host, f"certs:add {app}", _archive(held.certificate, held.private_key))
        else:
            done = await self._ask(host, f"certs:remove {app}")
        return _said(done) if done.status else ""

    async def _broken(self, host: Host) -> str:
        """What nginx complains about as things are; empty when it is content, or Dokku is too old to say."""
        tested = await self._ask(host, "nginx:validate-config")
        return _said(tested) if tested.status and not _lacks(tested) else ""

    async def _ask(self, host: Host, command: str, archive: bytes = b"") -> Finished:
        # App names hold nothing that a shell reads otherwise; sshcommand splits this at blanks.
        return await self._connections.run(host, command, archive)


def _decided(item: Item, found: Found) -> AppAnswer | None:
    """What is to say without doing anything; None: it is to be put there."""
    if not found.exists:
        return AppAnswer(State.FAILED, 0, message=f"Dokku has no app {item.app}; `dokku apps:create {item.app}`")
    if found.certificate and found.stamp is None and not item.adopt:
        return _stands(State.FOREIGN, found, f"the certificate of {item.app} was not put there by certfleet")
    if found.generation > item.generation:
        return _stands(State.STALE, found, f"generation {found.generation} is newer")
    if found.generation == item.generation and found.serial != item.serial:
        return _stands(State.STALE, found, f"generation {found.generation} is here already with another serial")
    if found.generation == item.generation and not item.again:
        return _stands(State.UNCHANGED, found)
    return None if fits(item) else _stands(State.FAILED, found, "the key does not fit the certificate; issue it again")


def _stands(state: State, found: Found, message: str | None = None) -> AppAnswer:
    """Nothing has changed."""
    return AppAnswer(state, found.generation, found.generation, found.serial, message)


def _archive(certificate: bytes, private_key: bytes) -> bytes:
    """What `certs:add` reads: server.crt and server.key."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in (("server.crt", certificate), ("server.key", private_key)):
            member = tarfile.TarInfo(name)
            member.mode = 0o600
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def _report(output: bytes) -> dict[str, bool]:
    """`certs:report`: which apps have a certificate."""
    apps: dict[str, bool] = {}
    app = ""
    for line in output.decode(errors="replace").splitlines():
        if line.startswith("=====> "):
            app = line.removeprefix("=====> ").split()[0]
        elif line.strip().startswith("Ssl enabled:"):
            apps[app] = line.rpartition(":")[2].strip() == "true"
    return apps


def _lacks(done: Finished) -> bool:
    return b"is not a dokku command" in done.complaints + done.output


def _said(done: Finished) -> str:
    """What Dokku said last, for a person: its complaints, else its output."""
    lines = (done.complaints.strip() or done.output.strip()).decode(errors="replace").splitlines()
    text = "; ".join(line.strip().removeprefix("!").strip() for line in lines if line.strip())
    return text[:ANSWERS_LENGTH] or f"it ended with {done.status} and without a word"


def _no_challenges(host: Host) -> str:
    return (
        f"host {host.name}: Dokku's user cannot write files for its nginx; let the responder answer the challenges "
        f'there (property challenge-via, docs/operations.md, "Dokku")'
    )
