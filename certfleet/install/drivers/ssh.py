"""The driver for other machines: the receiver at the other end of SSH.

The key that logs in may run `receiver.sh serve` and nothing else, whatever is asked for; so what is asked are the
receiver's own words, and its commands and directories come from the host's /etc/certfleet/receiver.conf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from certfleet.errors import InstallError
from certfleet.install import challenge, csr
from certfleet.install.answer import Answer, Report, parse, parse_report
from certfleet.install.bundle import Item, pack
from certfleet.install.challenge import Answerer
from certfleet.install.csr import Wanted
from certfleet.install.drivers import words
from certfleet.install.drivers.connections import Connections, Finished
from certfleet.models import Host


class SSH:
    """Over the connections of this process."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def install(self, host: Host, items: Sequence[Item]) -> Answer:
        """Put the items into place. Raises HostUnreachable or InstallError."""
        output = await self._run(host, ["install", *words.install(items)], pack(items, host.root, host.preset))
        return parse(output, host=host.name, expected=[item.app for item in items])

    async def rollback(self, host: Host, previous: Mapping[str, int]) -> Answer:
        """Make each app's given generation current again (0: none). Raises HostUnreachable or InstallError."""
        return parse(await self._run(host, ["rollback", *words.rollback(previous)]), host=host.name, expected=previous)

    async def status(self, host: Host) -> Answer:
        """What is current for each app. Raises HostUnreachable or InstallError."""
        return parse(await self._run(host, ["status"]), host=host.name)

    async def check(self, host: Host, *, reload: bool = False) -> Report:
        """What works there, point by point. Raises HostUnreachable or InstallError."""
        return parse_report(await self._run(host, ["check", *words.check(reload=reload)]), host=host.name)

    async def remove(self, host: Host, apps: Sequence[str]) -> Answer:
        """Take the apps' certificates away. Raises HostUnreachable or InstallError."""
        return parse(await self._run(host, ["remove", *apps]), host=host.name, expected=apps)

    async def cleanup(self, host: Host, keep: int) -> Answer:
        """Delete old generations. Raises HostUnreachable or InstallError."""
        return parse(await self._run(host, ["cleanup", *words.cleanup(keep)]), host=host.name)

    async def publish(self, host: Host, answers: Mapping[str, str]) -> None:
        """Put challenges into the webroot: token -> key authorization. Raises HostUnreachable or InstallError."""
        parse(await self._run(host, ["challenge"], challenge.answers(answers)), host=host.name)

    async def withdraw(self, host: Host, tokens: Sequence[str]) -> None:
        """Take challenges away. Raises HostUnreachable or InstallError."""
        parse(await self._run(host, ["withdraw"], challenge.tokens(tokens)), host=host.name)

    async def snippet(self, host: Host, apps: Sequence[Answerer]) -> Answer:
        """Let the web server answer for the apps by itself. Raises HostUnreachable or InstallError."""
        output = await self._run(host, ["snippet"], challenge.answerers(apps))
        return parse(output, host=host.name, expected=[one.app for one in apps])

    async def request(self, host: Host, wanted: Sequence[Wanted]) -> Answer:
        """Have a key made for each, which stays there. Raises HostUnreachable or InstallError."""
        output = await self._run(host, ["request"], csr.lines(wanted))
        return parse(output, host=host.name, expected=[one.app for one in wanted])

    async def _run(self, host: Host, asked: Sequence[str], archive: bytes = b"") -> bytes:
        # Each word is one of the receiver's own, an app's name or a number: nothing that a shell reads otherwise.
        finished = await self._connections.run(host, " ".join(asked), archive)
        # What a login shell's start-up files print comes before the answer, which is one line.
        answer = finished.output.rstrip().rpartition(b"\n")[2]
        if not answer.startswith(b"{"):
            raise InstallError(_no_answer(host, finished))
        return answer


def _no_answer(host: Host, finished: Finished) -> str:
    said = (finished.complaints or finished.output).decode(errors="replace").strip().rpartition("\n")[2][:300]
    seen = f"ended with {finished.status} and {said!r}" if said else f"ended with {finished.status} without a word"
    return f"host {host.name}: the receiver {seen}; `certfleet host setup {host.name}` puts it there"
