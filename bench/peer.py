"""What a peer did in the same run against the same CA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Peer:
    """Another way to the same certificates."""

    key: str
    """In the names of ratios: `certbot`, `bare_8`."""
    name: str
    certificates: int
    certificates_per_second: float
    cpu_ms_per_certificate: float
    requests_per_certificate: float

    @classmethod
    def of(
        cls, key: str, name: str, *, certificates: int, seconds: float, cpu_ms: float, counts: Mapping[str, int]
    ) -> Self:
        """Work out the figures; `counts` are the requests that the CA's front saw."""
        return cls(
            key,
            name,
            certificates,
            round(certificates / seconds, 2 if seconds > certificates else 1),
            round(cpu_ms / certificates, 2),
            round((sum(counts.values()) - counts["bad_nonce"]) / certificates, 2),
        )
