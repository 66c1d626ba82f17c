"""Boulder's own answers, for the script on a real Redis and for the reference that judges it elsewhere."""

from __future__ import annotations

from typing import Protocol

import pytest

from certfleet.limits.buckets import Buckets, Charge, Decision
from tests.limits.conftest import SECOND, Watch, bucket_of
from tests.limits.reference import Answer, ReferenceBucket

# seconds to wait, verb, cost -> allowed, remaining, retry in, reset in (seconds)
Step = tuple[float, str, int, bool, int, float, float]

SPEND: list[Step] = [
    (0, "spend", 1, True, 9, 0, 1),
    (0, "spend", 9, True, 0, 9, 10),
    (0, "spend", 1, False, 0, 1, 10),
    (1, "spend", 0, True, 1, 0, 9),
    (0, "spend", 1, True, 0, 1, 10),
    (10, "spend", 1, True, 9, 0, 1),
    (0.999, "spend", 0, True, 9, 0, 0.001),
    (72_000, "spend", 0, True, 10, 0, 0),
    (0, "spend", 10, True, 0, 10, 10),
    (0, "spend", 0, True, 0, 0, 10),
    (0, "spend", 1, False, 0, 1, 10),
    (1, "spend", 1, True, 0, 1, 10),
    (5, "spend", 7, False, 5, 2, 5),
]
REFUND: list[Step] = [
    (0, "spend", 1, True, 9, 0, 1),
    (0, "refund", 1, True, 10, 0, 0),
    (0, "refund", 0, False, 10, 0, 0),
    (0, "spend", 1, True, 9, 0, 1),
    (1, "refund", 1, False, 10, 0, 0),
    (0, "spend", 10, True, 0, 10, 10),
    (0, "refund", 10, True, 10, 0, 0),
    (11, "refund", 1, False, 10, 0, 0),
    (0, "spend", 5, True, 5, 0, 5),
    (0, "refund", 1, True, 6, 0, 4),
    (2.5, "spend", 0, True, 8, 0, 1.5),
    (0, "refund", 2, True, 10, 0, 0),
]


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
