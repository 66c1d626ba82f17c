"""Benchmarks that print figures, with the machine, the versions and the ratio to peers in the same run."""

from certfleet.errors import CertfleetError


class BenchFailed(CertfleetError):
    """A figure could not be measured; `str()` says which and why."""
