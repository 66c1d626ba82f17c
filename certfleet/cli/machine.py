"""Commands about this machine: `up`, `demo`, `vault`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from certfleet.cli.session import Exit, fail, guarded, raise_usage

LARGEST_BUNDLE = 1_000_000  # bytes
vault = typer.Typer(help="The keys that seal private keys at rest.", no_args_is_help=True, rich_markup_mode=None)


def up() -> None:
    """Run everything on this machine.

    Redis, workers, beat, the responder for challenges, and Flower; what dies is started again.
    Ctrl-C ends it in order, a second one at once. Settings are CERTFLEET_* variables, or
    certfleet.toml in the state directory (CERTFLEET_HOME).
    """
    # The processes are beyond this package: they know it, it does not know them.
    os.execv(sys.executable, [sys.executable, "-m", "workers.stack"])  # noqa: S606


def demo(
    apps: Annotated[int, typer.Option("--apps", metavar="N", min=1, max=500, help="How many apps, 1 to 500.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON on standard output.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")] = False,
) -> None:
    """Show the main job on real parts.

    A Pebble CA, an nginx and a fleet of its own run on this machine until it is over; nothing else
    is touched.
    """
    from certfleet.demo.story import tell  # noqa: PLC0415  the demo brings many imports

    complete = guarded(lambda: asyncio.run(tell(apps, as_json=as_json, keep=keep)))
    if not complete:
        raise typer.Exit(int(Exit.FAILED))


@vault.command()
def rotate() -> None:
    """Seal every private key with a new key.

    Workers go on meanwhile. The old keys stay in the file, for backups of Redis; back the file up.
    """
    from certfleet.lifecycle.rotation import rotate as run  # noqa: PLC0415
    from certfleet.settings import load_settings  # noqa: PLC0415

    count, path = guarded(lambda: asyncio.run(run(load_settings())))
    typer.echo(f"{count} private keys are sealed with the new key in {path}; back it up. The old keys stay in it.")


def read_bundle(file: str) -> str:
    """The content of a PEM file that a person named."""
    path = Path(file)
    try:
        if path.stat().st_size > LARGEST_BUNDLE:
            raise_usage("ca-bundle", file, f"is larger than {LARGEST_BUNDLE} bytes: give a file of PEM certificates")
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        fail(f"ca-bundle: {file!r} cannot be read ({reason}): give a file of PEM certificates", Exit.USAGE)
