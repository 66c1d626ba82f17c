"""Records of certificates for tests that only look at records: nothing in them can be installed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from certfleet.models import App, Certificate, KeyType

CA = "https://ca.example/directory"


def record(app: App, issued: datetime, **changes: Any) -> Certificate:
    """The app's first certificate, for 90 days, but for what is said by name."""
    plain = Certificate(
        app=app.name,
        generation=1,
        ca=CA,
        identifiers=app.identifiers,
        key_type=KeyType.P256,
        serial="1234",
        not_before=issued,
        not_after=issued + timedelta(days=90),
        issued=issued,
        leaf="",
        chain="",
        sealed_key="",
    )
    return replace(plain, **changes)
