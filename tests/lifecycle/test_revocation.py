"""Revoking, from a person's word to what Pebble says of the certificate, with the whole fleet running."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509

from certfleet.acme_ca.keys import spki_digest
from certfleet.demo.handshake import serials, trusting
from certfleet.errors import UsageError
from certfleet.lifecycle.revocations.replacing import selection
from certfleet.models import Certificate
from certfleet.overview import Overview, State
from tests.rig import LIMIT, Rig, kill

ELSEWHERE = "127.0.0.9"
"""Where nobody answers a challenge."""


async def served(rig: Rig, *names: str) -> dict[str, Certificate]:
    """Apps that are served, and their certificates."""
    for name in names:
        await rig.add(name)
    await rig.nginx.reload()
    for name in names:
        await rig.client.enable(name)
    await rig.all_served()
    return {name: await certificate(rig, name) for name in names}


async def certificate(rig: Rig, name: str) -> Certificate:
    found = await rig.client._fleet.records.certificate(name)
    assert found is not None
    return found


def key_of(found: Certificate) -> bytes:
    return spki_digest(x509.load_pem_x509_certificate(found.leaf.encode()))


async def renewed(rig: Rig, *names: str, above: int = 1) -> None:
    """Wait until these apps are served with a newer certificate."""

    def holds(views: Sequence[Overview]) -> bool:
        mine = [view for view in views if view.name in names]
        return all(view.state is State.SERVED and view.generation > above for view in mine)

    await rig.until("replaced", holds)


async def revoked(rig: Rig, serial: str, reason: int) -> None:
    """Wait until the CA says so."""
    deadline = time.monotonic() + LIMIT
    while (status := await rig.ca.status(serial))["Status"] != "Revoked":
        assert time.monotonic() < deadline, f"{status}\n{rig.logs()}"
        await asyncio.sleep(0.1)
    assert status.get("Reason", 0) == reason


async def nothing_left(rig: Rig, name: str) -> None:
    """Wait until no revocation of the app is kept."""
    deadline = time.monotonic() + LIMIT
    while found := await rig.client.revocations(name):
        assert time.monotonic() < deadline, f"{found}\n{rig.logs()}"
        await asyncio.sleep(0.2)


async def events(rig: Rig, name: str) -> list[str]:
    return [entry.event for entry in await rig.client.history(name)]


async def test_revoked_and_reordered(rig: Rig) -> None:
    """The CA has revoked it, and the app is served with another one that nobody asked for; its neighbour is not."""
    before = await served(rig, "blog", "wiki")
    said = rig.run("revoke", "blog", "--reason", "superseded")
    assert said.returncode == 0, said.stderr
    await revoked(rig, before["blog"].serial, 4)
    await renewed(rig, "blog")
    await nothing_left(rig, "blog")
    after = await certificate(rig, "blog")
    await rig.sees({"blog.demo.test": after.serial, "wiki.demo.test": before["wiki"].serial})
    assert (await rig.ca.status(before["wiki"].serial))["Status"] == "Valid"
    assert (await rig.ca.status(after.serial))["Status"] == "Valid"
    history = await rig.client.history("blog")
    assert [e.detail for e in history if e.event == "ordered"][-1].startswith("revoked: ")
    again = rig.run("revoke", "blog", "--reason", "mood")
    assert (again.returncode, again.stdout) == (2, "")
    assert "reason: 'mood' is not one of unspecified, keyCompromise" in again.stderr


async def test_a_disabled_app_stays_without_another(rig: Rig) -> None:
    """It is revoked, for the reason that it has, and nothing is ordered; asking again says that it is done."""
    before = await served(rig, "blog")
    await rig.client.disable("blog")
    with pytest.raises(UsageError, match="is not enabled, nothing would take the place"):
        await rig.client.revoke("blog", compromised=True)
    await rig.client.revoke("blog", reason="cessationOfOperation")
    await revoked(rig, before["blog"].serial, 5)
    await nothing_left(rig, "blog")
    assert (await rig.view("blog")).generation == 1
    with pytest.raises(UsageError, match="was revoked on"):
        await rig.client.revoke("blog")


async def test_compromised_is_replaced_everywhere_first(rig: Rig) -> None:
    """While its replacement cannot be had it stays valid, and it is said what it waits for; workers may be killed."""
    before = await served(rig, "blog")
    await rig.client.set_property("reuse-key", "on", "blog")
    await rig.ca.point("blog.demo.test", [ELSEWHERE])
    said = rig.run("revoke", "blog", "--compromised")
    assert said.returncode == 0, said.stderr
    await rig.until("failing", lambda views: views[0].state is State.FAILING)
    assert "waits for the new certificate" in rig.run("info", "blog").stdout
    [told] = json.loads(rig.run("info", "blog", "--json").stdout)["revocations"]
    assert (told["serial"], told["reason"]) == (before["blog"].serial, "keyCompromise")
    kill(rig.children()["w1"])
    assert (await rig.ca.status(before["blog"].serial))["Status"] == "Valid"

    await rig.ca.point("blog.demo.test", ["127.0.0.1"])
    await rig.client.renew(["blog"])
    await revoked(rig, before["blog"].serial, 1)
    after = await certificate(rig, "blog")
    assert after.generation == 2
    assert key_of(after) != key_of(before["blog"]), "the key that leaked was used again, as reuse-key says"
    assert await serials(trusting(await rig.ca.root()), rig.nginx.tls_port, ["blog.demo.test"]) == {
        "blog.demo.test": after.serial
    }
    await nothing_left(rig, "blog")
    told_in = await events(rig, "blog")
    assert told_in.index("revocation waits") < len(told_in) - 1 - told_in[::-1].index("served")
    assert len(told_in) - 1 - told_in[::-1].index("served") < told_in.index("revoked")


async def test_a_key_is_kept_as_its_property_says(rig: Rig) -> None:
    """Off: a new key for each certificate. On: the same, until it is another kind of key."""
    first = (await served(rig, "blog"))["blog"]
    keys, generation = [key_of(first)], 1
    for value in ("off", "on", "on"):
        await rig.client.set_property("reuse-key", value, "blog")
        await rig.client.renew(["blog"], force=True)
        await renewed(rig, "blog", above=generation)
        generation += 1
        keys.append(key_of(await certificate(rig, "blog")))
    assert keys[0] != keys[1] == keys[2] == keys[3]
    await rig.client.set_property("key-type", "p384", "blog")
    await renewed(rig, "blog", above=generation)
    assert key_of(await certificate(rig, "blog")) != keys[3]


async def test_many_are_replaced_and_revoked_last(rig: Rig, tmp_path: Path) -> None:
    """Those in the file, once each, also when it is asked for twice; the others are left alone."""
    before = await served(rig, "a1", "a2", "a3", "b1")
    listed = tmp_path / "serials.txt"
    listed.write_text("# of the incident\n" + "".join(f"{before[n].serial.upper()}\n" for n in ("a1", "a2", "a3")))
    assert "3 certificates" in rig.run("replace", "--file", str(listed)).stderr, "without --yes it asks"
    assert (await rig.client.replacement()).asked == 0
    words = ("replace", "--file", str(listed), "--revoke", "--yes")
    await cut_short(rig, *words)
    said = rig.run(*words, "--wait", "--timeout", "50", "--json")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)["replacement"]
    assert found == {
        "asked": 3, "ordered": 3, "issued": 3, "served": 3, "to_revoke": 3, "revoked": 3, "failing": 0
    }  # fmt: skip
    for name in ("a1", "a2", "a3"):
        await revoked(rig, before[name].serial, 4)
        assert (await certificate(rig, name)).generation == 2
        told = await events(rig, name)
        assert len(told) - 1 - told[::-1].index("served") < told.index("revoked")
    assert await certificate(rig, "b1") == before["b1"]
    assert "3 of 3 replaced and served" in rig.run("replace").stdout
    nobody = rig.run(*words)
    assert "3 of 3" in nobody.stdout, "nothing fits any more, and nothing is begun anew"
    early = await rig.client.choose(selection(None, None, ("2020-01-01", "2020-01-02")))
    assert (early.apps, early.asked) == ((), 0)
    every = await rig.client.choose(selection(None, rig.ca.directory, ("2020-01-01", "2100-01-01T00:00Z")))
    assert (len(every.apps), every.asked) == (4, 3)
    listed.write_text("deadbeef\n")
    wrong = rig.run(*words)
    assert (wrong.returncode, wrong.stdout) == (1, ""), "what was done before is no answer to it"
    assert "no enabled app has such a certificate" in wrong.stderr
    listed.write_text(f"{before['b1'].serial}\n{before['a1'].serial}\ndeadbeef\nc0ffee\n")
    partly = rig.run(*words)
    assert "2 of 4 serials are no enabled app's certificate now, and are left out: c0ffee, deadbeef" in partly.stderr
    assert " of 1 replaced and served" in partly.stdout, "the one that is there still"


async def cut_short(rig: Rig, *words: str) -> None:
    """Kill the command as soon as it has begun."""
    program = Path(sys.executable).with_name("certfleet")
    nothing = subprocess.DEVNULL
    command = await asyncio.create_subprocess_exec(program, *words, env=rig.environment(), stdout=nothing)
    try:
        deadline = time.monotonic() + LIMIT
        while not (await rig.client.replacement()).asked:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
    finally:
        if command.returncode is None:
            command.kill()
        await command.wait()


async def test_an_account_that_is_ended_leaves_the_certificates_own_key(rig: Rig) -> None:
    """Apps fail with a sentence that says what to do, and what was issued can still be revoked."""
    before = await served(rig, "blog")
    said = rig.run("account", "deactivate", "ops@example.com", "--yes")
    assert said.returncode == 0, said.stderr
    await rig.client.renew(["blog"], force=True)
    [view] = await rig.until("failing", lambda views: views[0].state is State.FAILING)
    assert "was deactivated on" in str(view.error)
    assert "`email`" in str(view.error)
    await rig.client.revoke("blog")
    await revoked(rig, before["blog"].serial, 0)
    await rig.client.set_property("email", "dev@example.com")
    await renewed(rig, "blog")


async def test_a_rollover_under_a_running_fleet(rig: Rig) -> None:
    """Workers that know the old key go on with the new one; an address that changes is followed by its apps."""
    await served(rig, "blog")
    said = rig.run("account", "rollover", "ops@example.com")
    assert said.returncode == 0, said.stderr
    await rig.client.renew(["blog"], force=True)
    await renewed(rig, "blog")
    said = rig.run("account", "email", "ops@example.com", "new@example.com")
    assert said.returncode == 0, said.stderr
    assert "1 apps follow" in said.stdout
    assert (await rig.client.properties("blog"))["email"] == "new@example.com"
    await rig.client.renew(["blog"], force=True)
    await renewed(rig, "blog", above=2)
    [account] = json.loads(rig.run("account", "ls", "--json").stdout)["accounts"]
    assert (account["email"], account["apps"], account["rolling"]) == ("new@example.com", 1, False)
    assert "order failed" not in await events(rig, "blog")


async def test_a_rollover_that_was_killed_under_a_running_fleet(rig: Rig) -> None:
    """The CA has the new key and the record the old one: the order that is refused finds out, and goes on."""
    await served(rig, "blog")
    words = ("after", rig.ca.directory, str(rig.directory / "ca" / "bundle.pem"), "ops@example.com")
    command = [sys.executable, "-m", "tests.acme_ca.killed_rollover", *words]
    ran = await asyncio.create_subprocess_exec(*command, env=rig.environment())
    assert await asyncio.wait_for(ran.wait(), LIMIT) == -signal.SIGKILL
    assert "was cut short" in rig.run("account", "ls").stdout
    await rig.client.renew(["blog"], force=True)
    await renewed(rig, "blog")
    assert "order failed" not in await events(rig, "blog")
    assert "was cut short" not in rig.run("account", "ls").stdout


async def test_terms_are_agreed_to_by_the_operator_alone(rig: Rig) -> None:
    """The refusal says where they are; `--agree-tos` for the app ends it."""
    await rig.client.set_property("agree-tos", "")
    await rig.add("blog")
    await rig.nginx.reload()
    await rig.client.enable("blog")
    [view] = await rig.until("failing", lambda views: views[0].state is State.FAILING)
    assert "what%20thou%20wilt" in str(view.error)
    assert "agree-tos" in str(view.error)
    assert (await rig.ca.counts())["newAccount"] == 0
    assert rig.run("enable", "blog", "--agree-tos", "--wait", "--timeout", "50").returncode == 0
