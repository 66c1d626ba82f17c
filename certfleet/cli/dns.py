"""`certfleet dns …`: what providers of DNS are given for dns-01."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from certfleet.cli.output import print_json, print_table
from certfleet.cli.session import Exit, ask, fail, guarded, raise_usage

LARGEST = 65_536  # characters of a file with keys
SHOWN = "****"

app = typer.Typer(help="DNS: credentials for the TXT records of dns-01.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name of yours, for the property dns.")]
AsJSON = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]


@app.command("set")
def set_credentials(
    name: Name,
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="rfc2136, exec, acme-dns, cloudflare, …")],
    pairs: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Its keys: `dns providers PROVIDER`.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="A file with a KEY=VALUE on each line; -: standard input."),
    ] = None,
) -> None:
    """Keep a provider's credentials.

    Sealed by the vault and never shown again; they replace those of the same name. What is typed can be
    read by everybody on this machine while the command runs, and stays in the shell's history: secrets
    belong into a file, or come by standard input.

    \b
    certfleet dns set corp rfc2136 server=192.0.2.53 key=certfleet --file tsig.txt
    certfleet dns set cf cloudflare --file -
    certfleet set --app blog challenge=dns-01 dns=cf
    """  # noqa: D301  the character that tells click to keep the lines
    values: dict[str, str] = {}
    for pair in (*(_lines(file) if file is not None else ()), *(pairs or ())):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise_usage("key", None, "each has to be KEY=VALUE, such as auth_token=…; one of them is not")
        values[key.strip()] = value.strip()
    typer.echo(ask(lambda client: client.set_dns(name, provider, values)).sentence)


@app.command("list")
def list_credentials(as_json: AsJSON = False) -> None:
    """List the credentials; their values are not shown."""
    found = ask(lambda client: client.dns())
    if as_json:
        print_json(credentials=found)
    elif not found:
        typer.echo("No credentials yet: `certfleet dns set --help`.")
    else:
        rows = [(one.name, one.provider, " ".join(f"{key}={SHOWN}" for key in one.keys)) for one in found]
        print_table(("NAME", "PROVIDER", "KEYS"), rows)


@app.command("rm")
def remove(name: Name) -> None:
    """Forget credentials that nothing uses."""
    typer.echo(ask(lambda client: client.remove_dns(name)).sentence)


@app.command()
def providers(
    provider: Annotated[str | None, typer.Argument(metavar="PROVIDER", help="This one and its keys.")] = None,
) -> None:
    """List the providers, or the keys that one of them takes."""
    from certfleet.dns import credentials  # noqa: PLC0415  late, like every import of a command

    known = guarded(credentials.providers)
    if provider is None:
        typer.echo("\n".join(name if there else f"{name} (needs dns-lexicon[{name}])" for name, there in known.items()))
    elif provider not in known:
        raise_usage("provider", provider, "is not known: `certfleet dns providers` lists them")
    else:
        typer.echo(" ".join(credentials.takes(provider)))


def _lines(file: str) -> list[str]:
    """The lines of a file, or of standard input, without comments and empty ones."""
    try:
        text = sys.stdin.read(LARGEST + 1) if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        fail(f"file: {file!r} cannot be read ({reason})", Exit.USAGE)
    if len(text) > LARGEST:
        raise_usage("file", file, f"is longer than {LARGEST} characters: give a file of KEY=VALUE lines")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
