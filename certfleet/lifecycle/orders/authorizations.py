"""The authorizations of a CA's order: what is still to be proven, and why one of them failed."""

from __future__ import annotations

import asyncio

from certfleet.acme_ca import protocol
from certfleet.acme_ca.protocol import AcmeOrder, Authorization
from certfleet.lifecycle.orders.run import Run
from certfleet.lifecycle.orders.trouble import OrderInvalid, OrderUseless


async def authorizations(run: Run, acme: AcmeOrder) -> list[Authorization]:
    """Each name's. Raises OrderUseless when one is dead: some CAs show its order as pending for ever."""
    found: list[Authorization] = await asyncio.gather(
        *(protocol.get_authorization(run.transport, run.signer, url) for url in acme.authorizations)
    )
    dead = [one for one in found if one.status not in ("pending", "valid")]
    if any(one.status == "invalid" for one in dead):
        raise await invalid(run, acme)
    if dead:
        told = ", ".join(f"that of {one.identifier} is {one.status}" for one in dead)
        raise OrderUseless(f"the order needs authorizations that are no more ({told}): a new one is made")
    return found


async def invalid(run: Run, acme: AcmeOrder) -> OrderInvalid:
    """Why the CA gave the order up: its own word, else that of the authorization that failed."""
    problems = [acme.error] if acme.error else []
    evidence, failed = [str(problem) for problem in problems], []
    for url in acme.authorizations:
        authorization = await protocol.get_authorization(run.transport, run.signer, url)
        if authorization.status == "invalid":
            failed.append(authorization.identifier)
        if authorization.error:
            problems.append(authorization.error)
            evidence.append(f"{authorization.identifier}: {authorization.error}")
    await run.admission.failed(failed)
    types = {problem.type for problem in problems} | {part.type for one in problems for part in one.subproblems}
    return OrderInvalid("the CA refused: " + ("; ".join(evidence) or "without a reason"), types)
