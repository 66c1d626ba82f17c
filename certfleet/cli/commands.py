"""The commands about certificates, and the groups of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from certfleet import __version__
from certfleet.cli import account, apps, dns, dns_persist, eab, hosts, limits, machine, revocation
from certfleet.cli.doctor import doctor
from certfleet.cli.forecast import forecast
from certfleet.cli.output import (
    NotedTable,
    expiry,
    left,
    moment,
    note,
    overview_table,
    print_json,
    print_renderable,
    print_table,
    waiting,
    when,
)
from certfleet.cli.session import Exit, ask, fail, guarded, raise_usage

if TYPE_CHECKING:
    from certfleet.client import Client
    from certfleet.overview import Overview

HELP = """\

Certificates for a fleet: ordered, installed, served and renewed.

To begin on one machine:

\b
  certfleet up                   start everything here; leave it running
  certfleet host add web1        this machine, with its nginx
  certfleet app add blog --domain blog.example.com \\
      --host web1 --email ops@example.com
  certfleet set agree-tos=on     you have read the CA's terms, and agree
  certfleet snippet blog         lines for nginx: put them in, reload it
  certfleet enable blog --wait   order, install, and see it served
  certfleet ls                   how all apps are
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(apps.app, name="app")
app.add_typer(hosts.app, name="host")
app.add_typer(dns.app, name="dns")
app.add_typer(dns_persist.app, name="dns-persist")
app.add_typer(limits.app, name="limits")
app.add_typer(account.app, name="account")
app.add_typer(machine.vault, name="vault")
app.add_typer(eab.app, name="eab")
app.command()(machine.up)
app.command()(machine.demo)
app.command()(forecast)
app.command()(revocation.revoke)
app.command("replace")(revocation.replace)
app.command()(doctor)
app.command()(eab.profiles)

Wait = Annotated[bool, typer.Option("--wait", help="Wait until every host serves the certificate.")]
Urgent = Annotated[bool, typer.Option("--urgent", help="Before every other order that waits for a limit of the CA's.")]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long --wait waits at most.")]
AsJSON = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
AppName = Annotated[str, typer.Argument(metavar="APP", help="The app's name.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"certfleet {__version__}")
        raise typer.Exit


@app.callback()
def _everything(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version


@app.command()
def enable(
    app: AppName,
    wait: Wait = False,
    timeout: Timeout = 120,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Overwrite a certificate that certfleet did not install there.")
    ] = False,
    urgent: Urgent = False,
    agree_tos: Annotated[
        bool,
        typer.Option("--agree-tos", help="You agree to the CA's terms of service, so that an account may be made."),
    ] = False,
) -> None:
    """Take care of an app from now on.

    Its certificate is ordered, installed on its hosts, and renewed. Exit status 0: done, 1: failed,
    2: wrong usage, 3: not served yet when --timeout was over.
    """
    if adopt:
        ask(lambda client: client.set_property("adopt", "on", app))
    typer.echo(ask(lambda client: client.enable(app, urgent=urgent, agree_tos=agree_tos)).sentence)
    if wait:
        _wait([app], timeout)


@app.command()
def disable(
    app: AppName,
    purge: Annotated[
        bool, typer.Option("--purge", help="Take its certificate and key away from its hosts as well.")
    ] = False,
) -> None:
    """Leave an app alone from now on.

    Its certificate stays installed, and expires if nobody renews it.
    """
    typer.echo(ask(lambda client: client.disable(app, purge=purge)).sentence)


@app.command()
def cleanup(
    hosts: Annotated[list[str] | None, typer.Argument(metavar="HOST", help="None: every host.")] = None,
) -> None:
    """Remove old certificates from hosts.

    As many stay of each app as the property keep-generations says. Workers do it within seconds, on a host that is
    down when it is back.
    """
    answers = ask(lambda client: client.clean_up(hosts or []))
    for done in answers:
        typer.echo(done.sentence)
    if not answers:
        typer.echo("There are no hosts: `certfleet host add --help`.")


@app.command()
def renew(
    apps: Annotated[list[str] | None, typer.Argument(metavar="APP", help="None: every enabled app.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Order a new certificate even if it is not due.")] = False,
    urgent: Urgent = False,
    wait: Wait = False,
    timeout: Timeout = 120,
) -> None:
    """Look at certificates now, and renew what is due.

    What failed is tried again now for the apps that are named. Exit status as for `enable`.
    """
    if force and not apps:
        raise_usage(
            "force", None, "name the apps: a new certificate for every app at once would use up the CA's limits"
        )
    if urgent and not apps:
        raise_usage("urgent", None, "name the apps: when everybody goes first, nobody does")
    views = _views(apps or []) if wait else []
    before = {view.name: view.generation for view in views if view.state != "disabled"}
    answers = ask(lambda client: client.renew(apps or [], force=force, urgent=urgent))
    for done in answers:
        typer.echo(done.sentence, err=not done.changed)
    if not answers:
        typer.echo("No app is enabled: `certfleet enable --help`.")
    if before:
        _wait(list(before), timeout, newer_than=before if force else {})
    if not all(done.changed for done in answers):
        raise typer.Exit(int(Exit.FAILED))


@app.command("ls")
def ls(
    apps: Annotated[list[str] | None, typer.Argument(metavar="APP", help="None: all.")] = None,
    as_json: AsJSON = False,
) -> None:
    """Show how all apps are.

    State, hosts that serve the newest certificate, times, and what is wrong.
    """
    views = _views(apps or [])
    if as_json:
        print_json(apps=views)
    elif views:
        print_renderable(overview_table(views))
    else:
        typer.echo("No apps yet: `certfleet app add --help`.")


@app.command()
def info(app: AppName, as_json: AsJSON = False) -> None:
    """Show everything about one app.

    Its certificate, its hosts, its properties, and what happened last.
    """
    view = _views([app])[0]
    installations = ask(lambda client: client.installations(app))
    properties = {k: v for k, v in ask(lambda client: client.properties(app)).items() if k != "ca-bundle"}
    history = ask(lambda client: client.history(app))
    external = ask(lambda client: client.bound_accounts(app))
    revocations = ask(lambda client: client.revocations(app))
    listed = ask(lambda client: client.revocation_list(app))
    if as_json:
        print_json(
            app=view,
            installations=installations,
            properties=properties,
            history=history,
            external_accounts=external,
            revocations=revocation.shown(revocations),
            revocation_lists=revocation.list_shown(listed),
        )
        return
    facts = [
        ("state", view.state),
        ("domains", " ".join(view.domains)),
        ("certificate", f"generation {view.generation}, serial {view.serial}" if view.serial else "none yet"),
        (
            "key",
            f"on host {view.key_on} alone" if view.key_on else "here, sealed, and on its hosts" if view.serial else "-",
        ),
        ("profile", view.profile or "the CA's default"),
        ("issued by", view.issued_by or "nobody yet"),
        *([("asked CA", view.asked_ca)] if view.asked_ca else []),
        *((f"passed over {one.ca}", f"{moment(one.at)}, {one.cause}: {one.why}") for one in view.passed_over),
        ("expires", when(view.not_after, expiry(view.not_after))),
        *([("revoked", f"{moment(view.revoked)}, {view.revoked_for or 'unspecified'}")] if view.revoked else []),
        ("renews", _renewal(view)),
        ("CA's window", f"{moment(view.window_start)} to {moment(view.window_end)}" if view.window_start else "none"),
        *([("CA's reason", view.explanation)] if view.explanation else []),
        ("order", view.reason or "none"),
        ("error", view.error or "none"),
        *([("warning", view.warning)] if view.warning else []),
        ("next try", moment(view.next_try)),
        ("waits for", waiting(view) or "nothing"),
        ("served on", f"{view.served_on} of {len(view.hosts)} hosts"),
        ("wave", view.wave or "none"),
        ("external account", " ".join(f"{one.kid}, key {one.key}" for one in external) or "none"),
        ("to be revoked", revocation.told(revocations)),
        ("CA's revocation list", revocation.list_told(listed)),
    ]
    print_table(("", view.name), facts)
    typer.echo("")
    rows = [
        (i.host, i.wanted, i.installed, i.served, moment(i.asked), left(i.retry_at), i.error or "")
        for i in installations
    ]
    print_renderable(NotedTable(("HOST", "WANTED", "INSTALLED", "SERVED", "LAST ASKED", "NEXT TRY IN", "ERROR"), rows))
    typer.echo("")
    print_table(("PROPERTY", "VALUE"), properties.items())
    typer.echo("")
    print_table(("TIME", "EVENT", "DETAIL"), [(moment(e.at), e.event, e.detail) for e in history])


def _renewal(view: Overview) -> str:
    if view.state == "disabled" and view.renew_at:
        return "not while it is disabled"
    if view.spread_from is None:
        return when(view.renew_at, left(view.renew_at))
    spread = f"spread: at its own time, {moment(view.spread_from)}, too many others are"
    return f"{when(view.renew_at, left(view.renew_at))}, {spread}"


@app.command("set")
def set_properties(
    settings: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE", help="One or more; an empty VALUE takes it away.")
    ],
    app: Annotated[str | None, typer.Option("--app", metavar="APP", help="For this app; without it, for all.")] = None,
) -> None:
    """Set properties on an app, or for all apps.

    All of them or none; `certfleet properties` lists them. The apps are looked at now.

    \b
    certfleet set email=ops@example.com ca=letsencrypt-staging
    certfleet set --app blog key-type=rsa2048 graceperiod=30d
    certfleet set ca=https://ca.example.internal/directory ca-bundle=/etc/ssl/roots.pem
    """  # noqa: D301  the character that tells click to keep the lines
    pairs = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise_usage("property", setting, "is not NAME=VALUE, such as graceperiod=30d")
        pairs[name] = machine.read_bundle(value) if name == "ca-bundle" and value else value
    ask(lambda client: client.set_properties(pairs, app))
    for name, value in pairs.items():
        shown = f"{value.count('BEGIN CERTIFICATE')} certificates" if name == "ca-bundle" and value else value
        typer.echo(f"{app or 'every app'}: {name} = {shown}" if value else f"{app or 'every app'}: {name} is not set")


@app.command()
def properties(
    app: Annotated[
        str | None, typer.Option("--app", metavar="APP", help="As they hold for this app; without it, for all.")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Show every property, its value and meaning."""
    from certfleet.properties import PROPERTIES  # noqa: PLC0415  late, like every import of a command

    values = ask(lambda client: client.properties(app))
    if as_json:
        print_json(properties=values)
        return
    shown = {name: value if name != "ca-bundle" or not value else "(set)" for name, value in values.items()}
    print_table(("PROPERTY", "VALUE", "MEANING"), [(n, shown[n] or "-", p.meaning) for n, p in PROPERTIES.items()])


@app.command()
def snippet(
    app: AppName,
    host: Annotated[
        str | None, typer.Option("--host", metavar="HOST", help="For this one of its hosts, if it has several.")
    ] = None,
) -> None:
    """Print an app's lines for its host's web server.

    They find the certificate and its key, and answer the CA's challenges, by the property challenge-via; an app whose
    challenge is another than http-01 has none of these.
    """
    from certfleet.install.snippet import snippet as lines  # noqa: PLC0415
    from certfleet.settings import load_settings  # noqa: PLC0415

    found = ask(lambda client: client.app(app))
    if host is not None and host not in found.hosts:
        raise_usage("host", host, f"does not serve {app}: it is on {', '.join(found.hosts)}")
    on = ask(lambda client: client.host(host or found.hosts[0]))
    settings = load_settings()
    properties = ask(lambda client: client.properties(app))
    via, passed_to = properties["challenge-via"], properties["responder"]
    where = (settings.responder_address, settings.responder_port)
    method = properties["challenge"]
    typer.echo(guarded(lambda: lines(found, on, *where, method=method, via=via, passed_to=passed_to)), nl=False)


def _views(names: list[str]) -> list[Overview]:
    async def collect(client: Client) -> list[Overview]:
        return [view async for view in client.overviews(names)]

    return ask(collect)


def _wait(names: list[str], timeout: float, newer_than: dict[str, int] | None = None) -> None:
    """Wait, say how each app is, and end with the status that fits the worst."""
    views = ask(lambda client: client.wait(names, timeout, newer_than or {}))
    for view in views:
        typer.echo(
            f"{view.name}: {view.state}, served on {view.served_on} of {len(view.hosts)}; {note(view)}".rstrip("; ")
        )
    if any(view.error for view in views):
        raise typer.Exit(int(Exit.FAILED))
    if any(view.state != "served" or view.generation <= (newer_than or {}).get(view.name, 0) for view in views):
        fail(f"not all were served within {timeout:.0f} s; it goes on: `certfleet ls` shows how", Exit.NOT_IN_TIME)
