"""`certfleet limits …`: what a CA takes, and what the operator knows better."""

from __future__ import annotations

from typing import Annotated

import typer

from certfleet.cli.output import away, moment, print_json, print_table
from certfleet.cli.session import ask, by_name, raise_usage

app = typer.Typer(help="Limits: what a CA takes of us.", invoke_without_command=True, rich_markup_mode=None)

CAName = Annotated[
    str | None,
    typer.Option(
        "--ca", metavar="CA", help="A preset or the URL of a directory; without it, the one set for all apps."
    ),
]
AsJSON = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]


@app.callback(invoke_without_command=True)
def limits(context: typer.Context, as_json: AsJSON = False) -> None:
    """Show the CA's limits as they stand now.

    Each bucket in use: tokens left, when it is full again, how many orders wait for it, and when the
    last of these is served. Before them each CA that does not answer.
    """
    if context.invoked_subcommand is not None:
        return
    found = ask(lambda client: client.buckets())
    outages = ask(lambda client: client.outages())
    if as_json:
        print_json(buckets=found, outages=outages)
        return
    for outage in outages:
        waits = "1 order waits" if outage.waiting == 1 else f"{outage.waiting} orders wait"
        typer.echo(f"{outage.directory}: {away(outage.since, outage.next_try)}; {waits}")
    if not found:
        typer.echo("No limit is in use: everything is full, and nobody waits.")
    else:
        rows = [
            (one.ca, one.meaning, f"{one.left} of {one.burst}", moment(one.full_at), one.waiting, moment(one.last_at))
            for one in found
        ]
        print_table(("CA", "LIMIT", "LEFT", "FULL AGAIN", "WAITING", "LAST SERVED"), rows)


@app.command("set")
def set_limits(
    limits: Annotated[
        list[str],
        typer.Argument(
            metavar="LIMIT=RATE", help="One or more, once for each; an empty RATE brings the preset's back."
        ),
    ],
    ca: CAName = None,
    account: Annotated[
        str | None, typer.Option("--account", metavar="EMAIL", help="For the account with this address alone.")
    ] = None,
    domain: Annotated[
        str | None, typer.Option("--domain", metavar="DOMAIN", help="For this registered domain or address alone.")
    ] = None,
) -> None:
    """Set limits of a CA.

    Those that it has granted to you, or that a CA without a preset has. All of them or none; they hold
    within a second. `certfleet limits presets` lists them.

    \b
    certfleet limits set --account ops@example.com orders-per-account=600/3h
    certfleet limits set --domain example.com certificates-per-domain=500/7d
    certfleet limits set --ca https://ca.example.internal/directory \\
        'requests-new-order=20/1s burst 10' 'orders-per-account=100 in 1h'
    """  # noqa: D301  the character that tells click to keep the lines
    pairs = by_name("limit", "limit", limits, _pair)
    done = ask(lambda client: client.set_limits(pairs, ca=ca, account=account, domain=domain))
    typer.echo(done.sentence)


def _pair(text: str) -> tuple[str, str]:
    name, equals, rate = text.partition("=")
    if not equals:
        raise_usage("limit", text, "is not LIMIT=RATE, such as orders-per-account=600/3h")
    return name, rate.strip()


@app.command()
def presets(ca: CAName = None, as_json: AsJSON = False) -> None:
    """Show the limits that hold at a CA.

    What it publishes, where and when that was read, and what was set here instead.
    """
    publication, rules = ask(lambda client: client.limits(ca))
    if as_json:
        print_json(publication=publication, limits=rules)
        return
    if publication.source:
        typer.echo(f"{publication.ca}: {publication.source}, as of {publication.as_of}")
    else:
        typer.echo(f"{publication.ca}: nothing is known but what was set here")
    rows = [
        (rule.limit, rule.account or rule.domain or "", rule.value, (rule.published or "-") if rule.overridden else "")
        for rule in rules
    ]
    print_table(("LIMIT", "FOR", "VALUE", "INSTEAD OF"), rows)
