"""`certfleet dns-persist …`: the records by which names are proven for as long as they stand."""

from __future__ import annotations

from typing import Annotated

import typer

from certfleet.cli.output import print_json
from certfleet.cli.session import ask

app = typer.Typer(
    help="dns-persist-01: TXT records that are made once, and stand.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _group() -> None:
    """dns-persist-01: TXT records that are made once, and stand."""


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="APP", help="The app's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Show the TXT records of an app, and whether they stand.

    One for each name and account, which proves it; to be made by hand at the DNS host. With the property persist-for
    they end some day. Asks DNS and the CA from this machine, which needs the vault's key.

    \b
    certfleet dns-persist show blog
    certfleet set --app blog challenge=dns-persist-01
    """  # noqa: D301  the character that tells click to keep the lines
    from certfleet.acme_ca.challenges.dns_persist01 import zone_line  # noqa: PLC0415  late, like every import of a command

    records = ask(lambda client: client.standing_records(name))
    if as_json:
        print_json(records=records)
        return
    if not records:
        typer.echo(
            f"There is nothing to write for {name}: it has IP addresses only, which cannot be proven by DNS; "
            "http-01 proves them."
        )
    words = {True: "stands", False: "does not stand", None: "not known"}
    for one in records:
        typer.echo(zone_line(one.record, one.value))
        typer.echo(f"    {words[one.stands]}: {one.message}")
        typer.echo(f"    for {', '.join(one.names)} at {one.ca}")
