"""Profiles at the door: what a directory may say of them, and an order that is made by another one."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from pathlib import Path

import pytest

from certfleet.acme_ca.keys import make_account_key
from certfleet.acme_ca.presets import known_profiles, presets
from certfleet.acme_ca.profiles import require_offered
from certfleet.acme_ca.protocol import Signer, new_order
from certfleet.acme_ca.transport import Directory
from certfleet.errors import CAMisbehaved, OwnerError

from .flow import directory_of, order_made, scripted

SIGNER = Signer(make_account_key(), "https://127.0.0.1/account/1")


@pytest.mark.parametrize(
    ("meta", "profiles"),
    [
        ({}, {}),
        ({"profiles": None}, {}),
        ({"profiles": ["classic"]}, {}),
        ({"profiles": {}}, {}),
        ({"profiles": {"classic": "https://x", "bad": 7, "": "empty", "two words": "x"}}, {"classic": "https://x"}),
        ({"profiles": {"a": "\u001b[31mred\nline"}}, {"a": "[31mred line"}),
        ({"profiles": {"a": "x" * 1000, "b" * 65: "long"}}, {"a": "x" * 300}),
        ({"profiles": {f"p{n}": "" for n in range(200)}}, {f"p{n}": "" for n in range(100)}),
    ],
)
def test_what_a_directory_says_of_them(meta: dict[str, object], profiles: dict[str, str]) -> None:
    """What cannot be read is as if it were not there: whoever names no profile gets certificates all the same."""
    found = Directory.model_validate_json(json.dumps(directory_of("https://ca.example") | {"meta": meta}))
    assert found.meta.profiles == profiles


@pytest.mark.parametrize("shown", ["classic", "shortlived", None])
async def test_an_order_by_another_profile_is_refused(tmp_path: Path, shown: str | None) -> None:
    """The CA shows what it made: another profile is not taken for the wanted one; a CA that shows none is believed."""
    sent: list[bytes] = []

    made = order_made(sent, {"type": "dns", "value": "a.example.com"}, **({"profile": shown} if shown else {}))
    async with scripted(tmp_path, made) as (_, transport):
        if shown == "classic":
            with pytest.raises(CAMisbehaved, match="by the profile 'classic' instead of shortlived"):
                await new_order(transport, SIGNER, ["a.example.com"], profile="shortlived")
        else:
            order = await new_order(transport, SIGNER, ["a.example.com"], profile="shortlived")
            assert order.profile == shown
    payload = json.loads(sent[0])["payload"]
    assert json.loads(urlsafe_b64decode(payload + "=="))["profile"] == "shortlived"


def test_the_sentence_for_a_profile_that_is_not_offered() -> None:
    """Lists what there is; says where the property has to be changed."""
    with pytest.raises(OwnerError, match=r"`certfleet set profile=NAME` \(classic: https://x; plain\)"):
        require_offered("ca", {"classic": "https://x", "plain": ""}, "other", where="")
    with pytest.raises(OwnerError, match=r"offers no profiles.*`certfleet set --app blog profile=`"):
        require_offered("ca", {}, "other", where="--app blog ")
    require_offered("ca", {"classic": ""}, "classic", where="")


def test_what_is_known_of_lets_encrypts() -> None:
    """By name and by directory; one default; IP addresses by shortlived alone (letsencrypt.org/docs/profiles)."""
    for name in ("letsencrypt", "letsencrypt-staging"):
        found = known_profiles(name)
        assert found == known_profiles(presets()[name].directory)
        assert [profile for profile, known in found.items() if known.default] == ["classic"]
        assert [profile for profile, known in found.items() if known.addresses] == ["shortlived"]
        assert {profile: known.names for profile, known in found.items()} == {
            "classic": 100, "tlsserver": 25, "shortlived": 25,
        }  # fmt: skip
        assert found["shortlived"].validity.total_seconds() == 160 * 3600
    assert known_profiles("https://ca.example/directory") == {}
