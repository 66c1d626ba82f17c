"""`certfleet doctor`: what is in the way of an app's certificate."""

from __future__ import annotations

from typing import Annotated

import typer

from certfleet.cli.output import print_json, print_table
from certfleet.cli.session import Exit, ask


def doctor(
    app: Annotated[str, typer.Argument(metavar="APP", help="The app's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Say what is in the way of a certificate, point by point.

    DNS, CAA records, port 80, the CA, its limits, the hosts; nothing is ordered. What stops: no order is sent because
    of it. Asks from this machine, which needs the vault's key. Exit status 1: something is not ok.
    """
    points = ask(lambda client: client.doctor(app))
    ok = all(point.ok for point in points)
    if as_json:
        print_json(app=app, ok=ok, points=points)
    else:
        several = len({one.ca for one in points if one.ca}) > 1
        words = [
            (
                "ok" if one.ok else "STOPS" if one.stops else "warns",
                f"{one.name}, {one.ca}" if several and one.ca else one.name,
                one.message,
            )
            for one in points
        ]
        print_table(("", app, ""), words)
    if not ok:
        raise typer.Exit(int(Exit.FAILED))
