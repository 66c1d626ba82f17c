"""`certfleet eab …` and `certfleet profiles`: what has to be told to a CA, and what it offers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from certfleet.cli.output import print_json, print_table
from certfleet.cli.session import Exit, ask, fail, raise_usage

app = typer.Typer(
    help="External accounts (EAB): what a CA gave you for ACME.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

LARGEST_KEY = 4_096  # bytes of the file
CAName = Annotated[
    str | None,
    typer.Option(
        "--ca", metavar="CA", help="A preset or the URL of a directory; without it, the one set for all apps."
    ),
]
Email = Annotated[
    str | None,
    typer.Option("--email", metavar="ADDRESS", help="Of the ACME account; without it, the one set for all apps."),
]
AsJSON = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]


@app.command("set")
def bind(
    kid: Annotated[str, typer.Option("--kid", metavar="KID", help="The key identifier that the CA gave.")],
    key_file: Annotated[
        str, typer.Option("--key-file", metavar="FILE", help="Holds the MAC key in base64url; - is standard input.")
    ],
    ca: CAName = None,
    email: Email = None,
) -> None:
    """Tell what a CA gave you (RFC 8555, section 7.3.4).

    It is used when the account of that CA and e-mail address is made. The MAC key is sealed, and never shown again.

    \b
    certfleet eab set --ca https://ca.example.com/directory --email ops@example.com --kid 12345 --key-file mac.key
    """  # noqa: D301  the character that tells click to keep the lines
    key = _read_key(key_file)
    typer.echo(ask(lambda client: client.bind_account(kid, key, ca=ca, email=email)).sentence)


@app.command("rm")
def unbind(ca: CAName = None, email: Email = None) -> None:
    """Forget what a CA gave you; an account that was made with it stays."""
    typer.echo(ask(lambda client: client.unbind_account(ca=ca, email=email)).sentence)


@app.command("list")
def list_bound(as_json: AsJSON = False) -> None:
    """List the external accounts, without their keys."""
    found = ask(lambda client: client.bound_accounts())
    if as_json:
        print_json(external_accounts=found)
    elif not found:
        typer.echo("No external accounts: `certfleet eab set --help`.")
    else:
        print_table(("CA", "EMAIL", "KID", "KEY"), [(one.ca, one.email, one.kid, one.key) for one in found])


def profiles(
    ca: CAName = None,
    app: Annotated[str | None, typer.Option("--app", metavar="APP", help="Of this app's CA.")] = None,
    as_json: AsJSON = False,
) -> None:
    """List the profiles that a CA offers.

    The CA's directory is asked from this machine.
    """
    if ca is not None and app is not None:
        raise_usage("ca", ca, "is given together with --app: give one of them")
    found = ask(lambda client: client.offer(ca=ca, app=app))
    if as_json:
        print_json(
            ca=found.ca,
            directory=found.directory,
            external_account_required=found.external_account_required,
            profiles=found.profiles,
        )
        return
    required = "" if not found.external_account_required else "; it needs an external account (`certfleet eab set`)"
    if not found.profiles:
        typer.echo(f"{found.ca}: offers no profiles{required}")
        return
    typer.echo(f"{found.ca}: {found.directory}{required}")
    print_table(("PROFILE", "DESCRIPTION"), [(one.name, one.description) for one in found.profiles])


def _read_key(file: str) -> str:
    try:
        if file == "-":
            content = sys.stdin.read(LARGEST_KEY + 1)
        elif Path(file).stat().st_size > LARGEST_KEY:
            content = " " * (LARGEST_KEY + 1)
        else:
            content = Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        fail(f"key-file: {file!r} cannot be read ({reason}): give a file with the CA's MAC key", Exit.USAGE)
    if len(content) > LARGEST_KEY:
        raise_usage("key-file", file, f"is larger than {LARGEST_KEY} bytes: give a file with the CA's MAC key alone")
    return content
