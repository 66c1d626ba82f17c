"""Benchmarks that print figures, with the machine, the versions and the ratio to peers in the same run."""

from pathlib import Path

from certfleet.errors import CertfleetError

ROOT = Path(__file__).parents[1]
"""Where measured processes are started."""


class BenchFailed(CertfleetError):
    """A figure could not be measured; `str()` says which and why."""
