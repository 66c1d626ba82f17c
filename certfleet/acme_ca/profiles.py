"""Profiles of certificates (draft-ietf-acme-profiles, before it draft-aaron-acme-profiles).

The CA's directory lists them, each with a URL or text that describes it. newOrder names one, else the CA takes its
default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from certfleet.errors import CARefuses

NAME = re.compile(r"[!-~]{1,64}")
"""What a profile may be called; the length is ours."""
MOST = 100  # profiles of one CA
DESCRIPTION = 300  # characters


class Known(BaseModel):
    """What a CA's documentation says of a profile of its (presets.toml), to tell before an order is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: int
    """How many identifiers a certificate has at most."""
    addresses: bool = False
    """Whether these may be IP addresses."""
    validity: timedelta
    default: bool = False
    """Whether it is what the CA takes when none is named."""


def _readable(value: object) -> dict[str, str]:
    # A list that cannot be read is no reason to order nothing: who names no profile does without it.
    if not isinstance(value, dict):
        return {}
    texts = {
        name: "".join(c if c.isprintable() else " " for c in text[:DESCRIPTION]).strip()
        for name, text in value.items()
        if isinstance(text, str) and NAME.fullmatch(name)
    }
    return dict(list(texts.items())[:MOST])


Profiles = Annotated[dict[str, str], BeforeValidator(_readable)]
"""`meta.profiles` of a directory: name -> description, mostly a URL."""


def require_offered(ca: str, offered: Mapping[str, str], profile: str, *, where: str) -> None:
    """Raise CARefuses, with those that there are, unless the CA offers the profile.

    `where`: how the property is addressed in `certfleet set`: empty for all apps, or `--app blog `.
    """
    if not offered:
        raise CARefuses(
            f"the CA {ca} offers no profiles, and the property profile is {profile}: "
            f"take it away with `certfleet set {where}profile=`"
        )
    if profile not in offered:
        there = "; ".join(f"{name}: {text}" if text else name for name, text in offered.items())
        raise CARefuses(
            f"the CA {ca} offers no profile {profile}: choose one with `certfleet set {where}profile=NAME` ({there})"
        )
