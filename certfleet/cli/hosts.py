"""`certfleet host …`: the machines that serve apps."""

from __future__ import annotations

import shlex
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from certfleet.cli.output import print_json, print_table
from certfleet.cli.session import Exit, ask, guarded, raise_usage
from certfleet.cli.trust import approver
from certfleet.models import Hop, Host, Places

if TYPE_CHECKING:
    from certfleet.client import Client, Done
    from certfleet.install.answer import Point

app = typer.Typer(help="Hosts: the machines that serve apps.", no_args_is_help=True, rich_markup_mode=None)

HostName = Annotated[str, typer.Argument(metavar="HOST", help="The host's name: up to 63 of a-z, 0-9 and -.")]
Fingerprints = Annotated[
    list[str] | None,
    typer.Option(
        "--fingerprint",
        metavar="SHA256:…",
        help="Of the host key that is expected, instead of being asked; with jump hosts, once for each on the way.",
    ),
]
AsJSON = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
DEFAULT = Host("default")
DOKKU = "dokku"
"""As --server, and as the driver that it stands for; the web server is Dokku's nginx."""


@app.command()
def add(
    name: HostName,
    ssh: Annotated[
        str, typer.Option(metavar="USER@HOST[:PORT]", help="Where to log in; without this, it is this machine.")
    ] = "",
    fingerprint: Fingerprints = None,
    jump: Annotated[
        list[str] | None,
        typer.Option(metavar="USER@HOST[:PORT]", help="A machine on the way to it, the nearest first."),
    ] = None,
    server: Annotated[
        str, typer.Option(metavar="SERVER", help="nginx, apache, haproxy or files; dokku, with --ssh dokku@HOST.")
    ] = DEFAULT.preset,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Where its web server is asked which certificate it serves; else where SSH goes, or 127.0.0.1.",
        ),
    ] = None,
    root: Annotated[str, typer.Option(metavar="DIRECTORY", help="Where certificates and keys are put.")] = DEFAULT.root,
    test_command: Annotated[
        str, typer.Option(metavar="COMMAND", help="Tests its configuration, instead of the server's own way.")
    ] = "",
    reload_command: Annotated[
        str, typer.Option(metavar="COMMAND", help="Reloads it, instead of the server's own way.")
    ] = "",
    zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Only workers that were started with this zone come here.")
    ] = None,
    webroot: Annotated[
        str, typer.Option(metavar="DIRECTORY", help="Where challenges are written, if they go by webroot.")
    ] = DEFAULT.webroot,
    fullchain: Annotated[
        str, typer.Option(metavar="PATH", help="With --server files: where its server looks; {app} is the app's name.")
    ] = "",
    chain: Annotated[str, typer.Option(metavar="PATH", help="The same for the intermediates alone.")] = "",
    combined: Annotated[str, typer.Option(metavar="PATH", help="The same for chain and key in one file.")] = "",
    key: Annotated[str, typer.Option(metavar="PATH", help="The same for the key.")] = "",
    owner: Annotated[str, typer.Option(metavar="USER[:GROUP]", help="Whose these files are.")] = "",
    file_mode: Annotated[str, typer.Option(metavar="MODE", help="Of those without the key, such as 0644.")] = "",
    key_mode: Annotated[str, typer.Option(metavar="MODE", help="Of those with the key, such as 0640.")] = "",
) -> None:
    """Add a host: this machine, or one that is reached by SSH.

    The host's key is shown and asked about, or compared with the fingerprint that you give. From then on no other key
    is taken.
    ~/.ssh/config is looked at for HostName, Port and ProxyJump. Next: `certfleet host setup`.
    """
    host = Host(
        name=name,
        driver=DOKKU if server == DOKKU else DEFAULT.driver,
        preset=DEFAULT.preset if server == DOKKU else server,
        address=DEFAULT.address if address is None else address,
        root=root,
        webroot=webroot,
        places=Places(fullchain, chain, combined, key, owner, file_mode, key_mode),
        test_command=_words("test-command", test_command),
        reload_command=_words("reload-command", reload_command),
        zone=zone,
    )
    if ssh:
        host = guarded(lambda: _by_ssh(host, ssh, tuple(jump or ()), address))
    elif fingerprint or jump or server == DOKKU:
        raise_usage("ssh", None, f"say where to log in: --ssh {DOKKU if server == DOKKU else 'root'}@192.0.2.1")

    async def pinned(client: Client) -> None:
        await client.require_addable(host)
        await client.add_host(await client.pin(host, approver(fingerprint or ())) if ssh else host)

    ask(pinned)
    if server == DOKKU:
        typer.echo(f"{name}: added; next: `certfleet host key | ssh root@{host.address} dokku ssh-keys:add certfleet`")
        return
    following = f"; next: `certfleet host setup {name}`" if ssh else ""
    typer.echo(f"{name}: added; certificates go to {root}{following}")


def _by_ssh(host: Host, ssh: str, jump: tuple[str, ...], address: str | None) -> Host:
    """The host at the other end of SSH, as the person's ~/.ssh/config has it."""
    from certfleet.install.pinning import resolve  # noqa: PLC0415  170 ms of asyncssh

    login, usual = resolve(ssh)
    hops = tuple(Hop(str(resolve(one, field="jump")[0])) for one in jump or usual)
    driver = host.driver if host.driver == DOKKU else "ssh"
    return replace(host, driver=driver, login=str(login), jump=hops, address=login.host if address is None else address)


@app.command()
def trust(name: HostName, fingerprint: Fingerprints = None) -> None:
    """Pin the key that a host shows now, after it was set up anew.

    Compare it on the machine itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub
    """

    async def asked(client: Client) -> Done:
        return await client.trust_host(name, approver(fingerprint or ()))

    typer.echo(ask(asked).sentence)


@app.command()
def setup(
    name: HostName,
    user: Annotated[
        str | None,
        typer.Option(
            metavar="USER",
            help="Let certfleet log in as this user, made if there is none, who may run the receiver by sudo and "
            "nothing else; without this, as the user of --ssh.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="USER[@HOST[:PORT]]",
            help="Who you are there: root, or somebody who may use sudo; else the user of --ssh.",
        ),
    ] = None,
) -> None:
    """Make a host ready, or bring it up to date.

    Logs in with your own agent, keys and ~/.ssh/config, and puts there: the receiver, its configuration, and the
    fleet's key, which may run the receiver and nothing else. Then it is checked, with a reload of the web server.
    """
    ready = ask(lambda client: client.set_up_host(name, user=user, by=by))
    typer.echo(f"{name}: set up; certfleet logs in as {ready.login}")
    _report(name, ask(lambda client: client.check_host(name, reload=True)), as_json=False)


@app.command()
def check(
    name: HostName,
    reload: Annotated[
        bool, typer.Option("--reload", help="Reload its web server too, which is the only proof that it may be.")
    ] = False,
    as_json: AsJSON = False,
) -> None:
    """Say what works on a host, point by point.

    Asks from this machine, which needs the vault's key. Exit status 1: something does not work.
    """
    _report(name, ask(lambda client: client.check_host(name, reload=reload)), as_json=as_json)


def _report(name: str, points: list[Point], *, as_json: bool) -> None:
    ok = all(point.ok for point in points)
    if as_json:
        print_json(host=name, ok=ok, points=points)
    else:
        print_table(("", name, ""), [("ok" if one.ok else "FAILS", one.name, one.message) for one in points])
    if not ok:
        raise typer.Exit(int(Exit.FAILED))


@app.command()
def key() -> None:
    """Print the fleet's public SSH key, to set a host up by hand."""
    typer.echo(ask(lambda client: client.installer_key()))


def _words(field: str, command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise_usage(field, command, f"is not a command as a shell would read it ({error})")


@app.command("list")
def list_hosts(as_json: AsJSON = False) -> None:
    """List the hosts."""
    hosts = ask(lambda client: client.hosts())
    if as_json:
        print_json(hosts=hosts)
    else:
        print_table(
            ("HOST", "DRIVER", "SERVER", "ADDRESS", "ROOT"),
            [(h.name, h.driver, h.preset, h.address, h.root) for h in hosts],
        )


@app.command()
def show(name: HostName, as_json: AsJSON = False) -> None:
    """Show a host."""
    from certfleet.install.presets import PRESETS  # noqa: PLC0415  late, like every import of a command

    host = ask(lambda client: client.host(name))
    if as_json:
        print_json(host=host)
        return
    rows = [
        ("driver", host.driver),
        ("server", host.preset),
        ("address", host.address),
        ("root", host.root),
        ("test command", shlex.join(host.test_command or PRESETS[host.preset].test)),
        ("reload command", shlex.join(host.reload_command or PRESETS[host.preset].reload)),
        ("webroot", host.webroot or "none"),
        *((what, place) for what, place in asdict(host.places).items() if place),
        ("zone", host.zone or "none"),
        ("login", host.login or "none"),
        ("jump hosts", " ".join(hop.login for hop in host.jump) or "none"),
        ("host key", " ".join(host.host_keys) or "none"),
    ]
    print_table(("", name), rows)


@app.command("rm")
def remove(name: HostName) -> None:
    """Forget a host that serves no app; its files stay."""
    ask(lambda client: client.remove_host(name))
    typer.echo(f"{name}: removed; its files stay")
