"""Boulder's own answers, for the script on a real Redis and for the reference that judges it elsewhere."""

from __future__ import annotations

from typing import Protocol

import pytest

from certfleet.limits.buckets import Buckets, Charge, Decision
from tests.known_answers import REFUND, SPEND, Step
from tests.limits.conftest import SECOND, Watch, bucket_of
from tests.limits.reference import Answer, ReferenceBucket


class Judged(Protocol):
    """The script or the reference."""

    async def __call__(self, verb: str, cost: int) -> Answer: ...


@pytest.fixture(params=["script", "reference"])
def judged(request: pytest.FixtureRequest, watch: Watch) -> Judged:
    """Whoever is asked; both are ten tokens, one a second."""
    if request.param == "reference":
        one = ReferenceBucket(SECOND, 10)

        async def reference(verb: str, cost: int) -> Answer:
            return one.spend(watch.now, cost) if verb == "spend" else one.refund(watch.now, cost)

        return reference
    buckets: Buckets = request.getfixturevalue("buckets")

    async def script(verb: str, cost: int) -> Answer:
        charge = Charge(bucket_of("example.com"), cost)
        said = await buckets.spend([charge]) if verb == "spend" else (await buckets.refund([charge]))[0]
        return answer(said)

    return script


def answer(said: Decision) -> Answer:
    """The decision's times as microseconds from its own now."""
    assert said.remaining is not None
    reset = said.reset_at - said.now
    return Answer(said.allowed, said.remaining, round(said.retry_in * SECOND), round(reset.total_seconds() * SECOND))


@pytest.mark.parametrize("steps", [SPEND, REFUND], ids=["spend", "refund"])
async def test_every_known_answer(judged: Judged, watch: Watch, steps: list[Step]) -> None:
    """Each step is allowed or denied, and leaves, exactly what Boulder says."""
    for number, (wait, verb, cost, allowed, remaining, retry_in, reset_in) in enumerate(steps):
        watch.move(wait)
        wanted = Answer(allowed, remaining, round(retry_in * SECOND), round(reset_in * SECOND))
        assert await judged(verb, cost) == wanted, f"step {number}: {verb} {cost}"
