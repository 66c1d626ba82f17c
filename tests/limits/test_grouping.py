"""Names divided otherwise: none lost, none twice, no certificate too large."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from certfleet.limits.grouping import regroup
from certfleet.limits.names import covering

names = st.sampled_from([f"{host}.{domain}.com" for host in "abcdef" for domain in "xyz"])
sets = st.lists(
    st.tuples(st.sampled_from(["one", "two"]), st.lists(names, unique=True, min_size=1, max_size=9).map(tuple)),
    max_size=12,
)


@given(sets=sets, most=st.integers(1, 10))
def test_every_name_is_on_a_certificate_of_its_own_key(sets: Sequence[tuple[str, tuple[str, ...]]], most: int) -> None:
    """All names of a set are on certificates that it is a member of; nobody of another key is on them."""
    groups = regroup(sets, most)
    for group in groups:
        assert 1 <= len(group.names) <= most
        assert len({sets[member][0] for member in group.members}) == 1
        assert set(group.names) <= {name for member in group.members for name in sets[member][1]}
    for index, (_, wanted) in enumerate(sets):
        mine = [group for group in groups if index in group.members]
        assert set(wanted) <= {name for group in mine for name in group.names}
        if len(wanted) <= most:
            assert len(mine) == 1, "a set that fits is not divided"


@given(sets=sets, most=st.integers(1, 10))
def test_who_shares_a_certificate_has_the_same_domains(sets: Sequence[tuple[str, tuple[str, ...]]], most: int) -> None:
    """A certificate counts for no domain that one of its members does not ask for."""
    for group in regroup(sets, most):
        counted = {covering(name) for name in group.names}
        if len(group.members) > 1:
            assert all(counted <= {covering(name) for name in sets[member][1]} for member in group.members)


def test_one_each_and_as_many_as_fit() -> None:
    """Five apps of one domain: five certificates, or three with up to two names, or one."""
    apps = [("key", (f"app{number}.example.com",)) for number in range(5)]
    assert [list(group.names) for group in regroup(apps, 1)] == [[name] for _, [name] in apps]
    assert [group.members for group in regroup(apps, 2)] == [[0, 1], [2, 3], [4]]
    assert [group.members for group in regroup(apps, 100)] == [[0, 1, 2, 3, 4]]
    [both] = regroup([("key", ("a.example.com", "example.com")), ("key", ("example.com",))], 100)
    assert list(both.names) == ["a.example.com", "example.com"]
