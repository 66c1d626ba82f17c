"""`certfleet host …`: the machines that serve apps."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from certfleet.cli.output import print_json, print_table
from certfleet.cli.session import ask, raise_usage
from certfleet.models import Host

app = typer.Typer(help="Hosts: the machines that serve apps.", no_args_is_help=True, rich_markup_mode=None)

HostName = Annotated[str, typer.Argument(metavar="HOST", help="The host's name: up to 63 of a-z, 0-9 and -.")]
AsJSON = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
DEFAULT = Host("default")


@app.command()
def add(
    name: HostName,
    address: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where its web server is asked which certificate it serves.")
    ] = DEFAULT.address,
    root: Annotated[str, typer.Option(metavar="DIRECTORY", help="Where certificates and keys are put.")] = DEFAULT.root,
    test_command: Annotated[
        str, typer.Option(metavar="COMMAND", help="Tests its configuration, instead of `nginx -t -q`.")
    ] = "",
    reload_command: Annotated[
        str, typer.Option(metavar="COMMAND", help="Reloads it, instead of `nginx -s reload`.")
    ] = "",
    zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Only workers that were started with this zone come here.")
    ] = None,
) -> None:
    """Add this machine, with its nginx, as a host."""
    host = Host(
        name=name,
        address=address,
        root=root,
        test_command=_words("test-command", test_command),
        reload_command=_words("reload-command", reload_command),
        zone=zone,
    )
    ask(lambda client: client.add_host(host))
    typer.echo(f"{name}: added; certificates go to {root}")


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
    host = ask(lambda client: client.host(name))
    if as_json:
        print_json(host=host)
        return
    rows = [
        ("driver", host.driver),
        ("server", host.preset),
        ("address", host.address),
        ("root", host.root),
        ("test command", shlex.join(host.test_command) or "nginx -t -q"),
        ("reload command", shlex.join(host.reload_command) or "nginx -s reload"),
        ("zone", host.zone or "none"),
    ]
    print_table(("", name), rows)


@app.command("rm")
def remove(name: HostName) -> None:
    """Forget a host that serves no app; its files stay."""
    ask(lambda client: client.remove_host(name))
    typer.echo(f"{name}: removed; its files stay")
