"""`python -m bench issue`, `fleet`, `install`, …: each subcommand is a module with `add_arguments` and `run`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from bench import crl, fleet, install, issue, limits, waiting, year
from certfleet.errors import CertfleetError

BENCHMARKS = {
    "crl": crl,
    "fleet": fleet,
    "install": install,
    "issue": issue,
    "limits": limits,
    "waiting": waiting,
    "year": year,
}


def main(words: Sequence[str] | None = None) -> int:
    """Run one benchmark; the exit status: 0 done, 1 failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="BENCHMARK")
    for name, module in BENCHMARKS.items():
        description = (module.__doc__ or "").strip()
        command = commands.add_parser(name, help=description.partition("\n")[0], description=description)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    given = parser.parse_args(words)
    try:
        asyncio.run(given.run(given))
    except CertfleetError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything that was started has ended", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
