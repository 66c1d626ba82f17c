"""The vault: nobody else reads its keys, rotation loses nothing, and no sentence holds a secret."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography.fernet import Fernet, MultiFernet
from hypothesis import given
from hypothesis import strategies as st

from certfleet.errors import ConfigurationError, VaultError
from certfleet.settings import Settings
from certfleet.vault import Vault, add_key, ensure_key, key_file

NOBODY = 65534
WATCH = """
import os, sys, time
from pathlib import Path
home, over, end, seen = Path(sys.argv[1]), Path(sys.argv[2]), time.monotonic() + 20, set()
print("watching", flush=True)
while time.monotonic() < end and not over.exists():
    try:
        found = [home, *home.iterdir()]
    except (FileNotFoundError, PermissionError):
        continue
    for path in found:
        try:
            if path.stat().st_mode & 0o077 or os.getuid() == 65534:
                seen.add(path.name)
        except FileNotFoundError:
            pass
print(*seen)
"""


@pytest.fixture
def own(short_directory: Path) -> Settings:
    """Settings with a home that is not there yet."""
    return Settings(home=short_directory / "home")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_first_start_makes_the_key(own: Settings) -> None:
    """0600 in a 0700 directory, whatever the umask; a key that is there is never touched."""
    before = os.umask(0)
    try:
        ensure_key(own)
        path = own.home / "vault.key"
        assert (mode(path), mode(own.home)) == (0o600, 0o700)
        text = path.read_text()
        ensure_key(own)
        assert path.read_text() == text
        add_key(own)
        assert mode(path) == 0o600
        assert path.read_text().split()[1:] == text.split()
        assert [file.name for file in own.home.iterdir()] == ["vault.key"], "nothing half written is left"
    finally:
        os.umask(before)


def test_another_user_never_sees_it(own: Settings) -> None:
    """Somebody who looks all the time while it is made and rotated finds nothing that is open to others.

    Root looks as another user; who is not root cannot, and looks at the modes instead.
    """
    own.home.parent.chmod(0o755)
    over = own.home.parent / "over"
    # An interpreter that the other user may run: ours may stand in a home of its own.
    command = ["/usr/bin/python3", "-c", WATCH, str(own.home), str(over)]
    root = os.geteuid() == 0
    user, groups = (NOBODY, list[int]()) if root else (None, None)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, user=user, group=user, extra_groups=groups
    ) as eyes:
        assert eyes.stdout is not None
        assert eyes.stdout.readline() == "watching\n"
        ensure_key(own)
        for _ in range(20):
            add_key(own)
        over.touch()
        assert eyes.stdout.read().strip() == ""
        assert eyes.wait(30) == 0


def test_many_first_starts_make_one_key(own: Settings) -> None:
    """Processes that start at once all seal with the same key."""
    program = (
        "import sys; from pathlib import Path; from certfleet.settings import Settings; "
        "from certfleet.vault import Vault, ensure_key; settings = Settings(home=Path(sys.argv[1])); "
        "sys.stdin.readline(); ensure_key(settings); print(Vault(settings).seal(b'x'))"
    )
    command = [sys.executable, "-c", program, str(own.home)]
    starts = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    try:
        for process in starts:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        sealed = [process.communicate(timeout=60)[0].strip() for process in starts]
    finally:
        for process in starts:
            process.kill()
    assert len((own.home / "vault.key").read_text().split()) == 1
    assert [Vault(own).open(text) for text in sealed] == [b"x"] * len(starts)


@given(st.binary(max_size=5000))
def test_what_is_sealed_is_opened(secret: bytes) -> None:
    """Any bytes come back, and are not to be seen in what is kept."""
    vault = Vault(Settings(vault_key=Fernet.generate_key().decode()))
    sealed = vault.seal(secret)
    assert vault.open(sealed) == secret
    assert vault.open(vault.reseal(sealed)) == secret


def test_rotation_while_others_work(own: Settings) -> None:
    """Vaults that were opened before seal and open through 30 rotations; nothing is lost."""
    ensure_key(own)
    vault, late = Vault(own), Vault(own)
    sealed: list[str] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            sealed.append(vault.seal(str(len(sealed)).encode()))
            assert late.open(sealed[-1]) == str(len(sealed) - 1).encode()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(30):
            add_key(own)
    finally:
        stop.set()
        worker.join(30)
    fresh = Vault(own)
    assert sealed
    assert [fresh.open(text) for text in sealed] == [str(number).encode() for number in range(len(sealed))]
    newest = Fernet((own.home / "vault.key").read_text().split()[0])
    assert newest.decrypt(fresh.reseal(sealed[0])) == b"0", "resealed with the newest key"
    assert newest.decrypt(vault.seal(b"now")) == b"now", "a vault that was open notices the new key"


def test_rotation_by_root_leaves_the_file_to_its_owner(own: Settings) -> None:
    """The workers' user goes on reading the key file after root rotated it."""
    ensure_key(own)
    owner = NOBODY if os.geteuid() == 0 else os.geteuid()  # only root can give it to somebody else
    os.chown(own.home / "vault.key", owner, -1)
    add_key(own)
    assert ((own.home / "vault.key").stat().st_uid, mode(own.home / "vault.key")) == (owner, 0o600)


def test_keys_from_the_environment(own: Settings) -> None:
    """Newest first, separated by commas; no file is made, and rotation says what to do instead."""
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    sealed = Fernet(old).encrypt(b"secret").decode()
    settings = Settings(home=own.home, vault_key=f"{new},{old}")
    ensure_key(settings)
    assert key_file(settings) is None
    assert not own.home.exists()
    vault = Vault(settings)
    assert vault.open(sealed) == b"secret"
    assert Fernet(new).decrypt(vault.reseal(sealed)) == b"secret"
    with pytest.raises(ConfigurationError, match="CERTFLEET_VAULT_KEY") as refused:
        add_key(settings)
    assert new not in str(refused.value)


def test_keys_from_a_named_file(own: Settings, short_directory: Path) -> None:
    """A file that somebody else provides is read and rotated, and never made."""
    path = short_directory / "keys"
    settings = Settings(home=own.home, vault_key_file=path)
    ensure_key(settings)
    assert not path.exists()
    with pytest.raises(ConfigurationError, match="keys cannot be read: No such file"):
        Vault(settings)
    path.write_text(Fernet.generate_key().decode())
    sealed = Vault(settings).seal(b"secret")
    assert add_key(settings) == path
    assert Vault(settings).open(sealed) == b"secret"


BAD = ["geheim", "geheim=", "A" * 43, "A" * 45 + "=", "", "\n\n", "A" * 43 + "=\ngeheim"]


@pytest.mark.parametrize("text", BAD)
def test_bad_keys(own: Settings, text: str) -> None:
    """One sentence that names the file or variable and holds nothing of the key."""
    own.home.mkdir(0o700)
    (own.home / "vault.key").write_text(text)
    sources = [own]
    if text.strip():
        sources.append(Settings(home=own.home, vault_key=text))
    for settings in sources:
        with pytest.raises(ConfigurationError) as refused:
            Vault(settings)
        said = str(refused.value)
        assert "vault.key" in said or "CERTFLEET_VAULT_KEY" in said
        assert not any(word in said for word in text.split())
        assert refused.value.__cause__ is None


def test_a_key_file_that_is_binary(own: Settings) -> None:
    """Not a traceback."""
    own.home.mkdir(0o700)
    (own.home / "vault.key").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="not text"):
        Vault(own)


def test_a_foreign_secret(own: Settings) -> None:
    """What another fleet sealed: a sentence with neither the sealed text nor a key; nor does repr show one."""
    ensure_key(own)
    vault = Vault(own)
    key = (own.home / "vault.key").read_text().strip()
    foreign = MultiFernet([Fernet(Fernet.generate_key())]).encrypt(b"secret").decode()
    for refuse in (vault.open, vault.reseal):
        for sealed in (foreign, "nonsense", "", key):
            with pytest.raises(VaultError) as refused:
                refuse(sealed)
            assert not sealed or sealed not in str(refused.value)
            assert key not in str(refused.value)
    assert key not in repr(vault)
    assert key not in repr(vars(vault))
    assert key not in repr(Settings(home=own.home, vault_key=key))
