"""`certfleet app …`: what there is to take care of."""

from __future__ import annotations

from typing import Annotated

import typer

from certfleet.cli.machine import read_bundle
from certfleet.cli.output import print_json, print_table
from certfleet.cli.session import ask

app = typer.Typer(
    help="Apps: names that share a certificate, and their hosts.", no_args_is_help=True, rich_markup_mode=None
)

AppName = Annotated[str, typer.Argument(metavar="APP", help="The app's name: up to 63 of a-z, 0-9 and -.")]
AsJSON = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]


@app.command()
def add(
    name: AppName,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", metavar="NAME", help="A DNS name or IP address of the app; once for each."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="HOST", help="A host that serves it (`host add`); once for each."),
    ] = None,
    email: Annotated[
        str | None,
        typer.Option("--email", metavar="ADDRESS", help="Contact of the CA's account; may be set for all apps."),
    ] = None,
    ca: Annotated[
        str | None,
        typer.Option(
            "--ca", metavar="CA", help="letsencrypt (the default), letsencrypt-staging, or an https directory URL."
        ),
    ] = None,
    ca_bundle: Annotated[
        str | None, typer.Option("--ca-bundle", metavar="FILE", help="PEM file with the roots of a private CA.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", metavar="NAME", help="The CA's profile, such as shortlived (`profiles`).")
    ] = None,
    agree_tos: Annotated[
        bool,
        typer.Option("--agree-tos", help="You agree to the CA's terms of service, so that an account may be made."),
    ] = False,
) -> None:
    """Add an app; nothing is ordered yet.

    \b
    certfleet app add blog --domain blog.example.com --host web1 --email ops@example.com
    certfleet enable blog
    """  # noqa: D301  the character that tells click to keep the lines
    given = {"email": email, "ca": ca, "ca-bundle": read_bundle(ca_bundle) if ca_bundle is not None else None}
    given["profile"] = profile
    properties = {key: value for key, value in given.items() if value is not None}
    if agree_tos:
        properties["agree-tos"] = "on"
    added = ask(lambda client: client.add_app(name, domain or [], host or [], properties))
    typer.echo(
        f"{name}: added with {', '.join(added.shown)} on {', '.join(added.hosts)}; `certfleet enable {name}` begins"
    )


@app.command()
def change(
    name: AppName,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", metavar="NAME", help="All its names from now on; once for each."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="HOST", help="All its hosts from now on; once for each."),
    ] = None,
) -> None:
    """Replace an app's names or hosts.

    Changed names get a new certificate; the old one is served until then.
    """
    typer.echo(ask(lambda client: client.change_app(name, domains=domain, hosts=host)).sentence)


@app.command("list")
def list_apps(as_json: AsJSON = False) -> None:
    """List the apps."""
    found = ask(lambda client: client.apps())
    if as_json:
        print_json(apps=found)
    else:
        rows = [(a.name, "yes" if a.enabled else "no", " ".join(a.shown), " ".join(a.hosts)) for a in found]
        print_table(("APP", "ENABLED", "DOMAINS", "HOSTS"), rows)


@app.command()
def show(name: AppName, as_json: AsJSON = False) -> None:
    """Show how an app is set up (`info`: how it is)."""
    found = ask(lambda client: client.app(name))
    if as_json:
        print_json(app=found)
        return
    rows = [
        ("domains", " ".join(found.shown)),
        ("hosts", " ".join(found.hosts)),
        ("enabled", "yes" if found.enabled else "no"),
    ]
    own = [(key, value if key != "ca-bundle" else "(set)") for key, value in found.properties.items()]
    print_table(("", name), rows + own)


@app.command("rm")
def remove(
    name: AppName,
    purge: Annotated[
        bool, typer.Option("--purge", help="Take its certificate and key away from its hosts as well.")
    ] = False,
) -> None:
    """Forget an app; its files stay on its hosts.

    Its web servers go on serving the certificate until it expires.
    """
    typer.echo(ask(lambda client: client.remove_app(name, purge=purge)).sentence)
