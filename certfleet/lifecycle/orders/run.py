"""One run of the order machine over one order: what all of its steps share."""

from __future__ import annotations

from dataclasses import dataclass, replace

from certfleet.acme_ca.protocol import Signer
from certfleet.acme_ca.transport import Transport
from certfleet.agenda import Claim
from certfleet.lifecycle.orders.admission import Admission
from certfleet.lifecycle.workbench import Workbench
from certfleet.limits.rooms import Standing
from certfleet.models import App, Certificate, Order


@dataclass(slots=True)
class Run:
    """What is at hand, and the order as it is by now."""

    bench: Workbench
    claim: Claim
    app: App
    order: Order
    properties: dict[str, str]
    transport: Transport
    signer: Signer
    admission: Admission
    standing: Standing
    served: Certificate | None
    """The app's present certificate."""

    async def save(self, **changes: object) -> None:
        """Persist the order with changes, under our fence. Raises LeaseLost."""
        self.order = replace(self.order, **changes)  # type: ignore[arg-type]  # fields by name
        await self.bench.fleet.records.save_order(self.claim, self.order)
