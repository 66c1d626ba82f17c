"""`certfleet account …`: the fleet's accounts at CAs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certfleet.cli.output import moment, print_json, print_table
from certfleet.cli.session import Exit, ask, fail, guarded, raise_usage

app = typer.Typer(help="Accounts at CAs: their keys and addresses.", no_args_is_help=True, rich_markup_mode=None)

Email = Annotated[str, typer.Argument(metavar="EMAIL", help="The account's e-mail address.")]
CAName = Annotated[
    str | None,
    typer.Option("--ca", metavar="CA", help="A preset or the URL of a directory, if several have this address."),
]


@app.command("ls")
def ls(as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False) -> None:
    """Show every account, and how many apps are set to it."""
    found = ask(lambda client: client.accounts())
    if as_json:
        print_json(accounts=found)
        return
    if not found:
        typer.echo("No accounts yet: the first order with a CA and an e-mail address makes one.")
        return
    rows = [(one.ca, one.email, one.apps, _state(one.deactivated, one.url, rolling=one.rolling)) for one in found]
    print_table(("CA", "EMAIL", "APPS", "ACCOUNT"), rows)


def _state(deactivated: object, url: str | None, *, rolling: bool) -> str:
    if deactivated is not None:
        return f"deactivated on {moment(deactivated)}"  # type: ignore[arg-type]
    return (url or "not registered yet") + (" (a change of its key was cut short)" if rolling else "")


@app.command()
def rollover(email: Email, ca: CAName = None) -> None:
    """Give an account a new key.

    Orders go on. If this is cut short, the next order or the next `rollover` finds out which key the CA has.
    """
    typer.echo(ask(lambda client: client.roll_over_account(email, ca)).sentence)


@app.command()
def register(
    email: Annotated[
        str | None, typer.Argument(metavar="EMAIL", help="Its e-mail address; without it, the one set for all apps.")
    ] = None,
    ca: Annotated[
        str | None, typer.Option("--ca", metavar="CA", help="Its CA; without it, the one set for all apps.")
    ] = None,
    agree_tos: Annotated[
        bool, typer.Option("--agree-tos", help="You agree to the CA's terms of service, so that it may be made.")
    ] = False,
) -> None:
    """Make an account before its first order.

    For a CAA record that names it (`accounturi`). Without this, the first order makes it.
    """
    typer.echo(ask(lambda client: client.register_account(email, ca, agree_tos=agree_tos)).sentence)


@app.command("email")
def change_email(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Its e-mail address.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The one it is to have.")],
    ca: Annotated[
        str | None, typer.Option("--ca", metavar="CA", help="At this CA only; its apps get the property themselves.")
    ] = None,
) -> None:
    """Give an account another e-mail address, at every CA or at one.

    Whatever has the old one as the property email follows.
    """
    typer.echo(ask(lambda client: client.change_account_email(old, new, ca)).sentence)


@app.command()
def deactivate(
    email: Email, ca: CAName = None, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """End an account for ever.

    Its certificates stay valid. Apps that are set to it get none any more, until they have another address.
    """
    if not yes:
        _confirm_end(email, ca)
    typer.echo(ask(lambda client: client.deactivate_account(email, ca)).sentence)


def _confirm_end(email: str, ca: str | None) -> None:
    """Ask about the one account that is meant; none or several are refused without that."""
    from certfleet.acme_ca.presets import resolve_ca  # noqa: PLC0415  late, like every import of a command

    at = guarded(lambda: resolve_ca(ca).name) if ca is not None else None
    kept = [one for one in ask(lambda client: client.accounts()) if one.email == email and at in (None, one.ca)]
    found = [one for one in kept if one.url is not None]
    if len(found) == 1:
        asked = f"End {email} at {found[0].ca} for ever? {found[0].apps} apps are set to it."
        if not typer.confirm(asked, err=True):
            fail("nothing was changed", Exit.FAILED)


@app.command("import")
def import_account(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Its key as the other client keeps it.")],
    email: Annotated[
        str, typer.Option("--email", metavar="ADDRESS", help="The property `email` of the apps that are to use it.")
    ],
    ca: Annotated[
        str | None, typer.Option("--ca", metavar="CA", help="Its CA; without it, the one set for all apps.")
    ] = None,
) -> None:
    """Use an account that another client has made.

    \b
    certbot            /etc/letsencrypt/accounts/SERVER/directory/ID/private_key.json
    lego               accounts/SERVER/EMAIL/keys/EMAIL.key (dokku-letsencrypt's is the same)
    acme.sh            ca/SERVER/directory/account.key
    """  # noqa: D301  the character that tells click to keep the lines
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise_usage("file", file, f"cannot be read: {error.strerror}")
    typer.echo(ask(lambda client: client.import_account(content, email, ca)).sentence)
