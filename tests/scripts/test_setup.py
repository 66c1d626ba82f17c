"""The set-up scripts: plain sh anywhere, quiet on standard output, clear when something is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"]
LONGEST = 60  # seconds

# Stands for Python: notes its arguments; `-m venv` puts it into the environment it is asked for.
PYTHON = """#!/bin/sh
case "$*" in
  *sys.version_info*"< (3, 11)"*) exit 0 ;;
  *"import ensurepip"*) [ ! -e "$NOTES.bare" ]; exit ;;
  *sys.version_info*) echo 3.11; exit 0 ;;
  --version) echo Python 3.11.2; exit 0 ;;
  "-m pip --version") exit 0 ;;
esac
echo "$*" >>"$NOTES"
echo "noise on standard output"
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$4/bin"
  cp "$0" "$4/bin/python"
fi
"""


def run(program: Path, *arguments: str, path: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments], cwd=cwd, env={"PATH": path, **environment},
        capture_output=True, text=True, timeout=LONGEST, check=False,
    )  # fmt: skip


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with spaces in its path, and a directory of stand-ins beside it."""
    checkout = tmp_path / "a check out"
    (checkout / "requirements").mkdir(parents=True)
    shutil.copytree(ROOT / "scripts", checkout / "scripts")
    (checkout / "requirements" / "run.txt").write_text("one==1\n")
    (checkout / "requirements" / "dev.txt").write_text("one==1\ntwo==2\n")
    (checkout / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "bin").mkdir()
    executable(tmp_path / "bin" / "python3", PYTHON)
    return checkout


def setup(checkout: Path, kind: str = "run") -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run scripts/setup from elsewhere; what it made Python do."""
    notes = checkout.parent / "notes"
    notes.write_text("")
    path = f"{checkout.parent / 'bin'}:/usr/bin:/bin"
    result = run(checkout / "scripts" / "setup", kind, path=path, cwd=checkout.parent, NOTES=str(notes))
    return result, notes.read_text().splitlines()


@pytest.mark.parametrize("shell", [("dash", "-n"), ("busybox", "sh", "-n")], ids=["dash", "busybox"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_every_script_is_plain_sh(program: Path, shell: tuple[str, ...]) -> None:
    """Readable by dash and busybox, executable, and named as sh."""
    subprocess.run([*shell, program], check=True, timeout=LONGEST)
    assert program.read_text().startswith("#!/bin/sh\n")
    assert os.access(program, os.X_OK)


def test_setup_makes_the_environment_once(checkout: Path) -> None:
    """First run: environment, pinned requirements by hash, the project; second run: nothing."""
    result, did = setup(checkout)
    assert result.returncode == 0, result.stderr
    assert [line.split()[1] for line in did] == ["venv", "pip", "pip"]
    assert "--require-hashes" in did[1]
    assert did[1].endswith("requirements/run.txt")
    assert "--no-build-isolation --no-deps --editable" in did[2]
    assert setup(checkout)[1] == []


def test_setup_writes_nothing_to_standard_output(checkout: Path) -> None:
    """Standard output belongs to who called it (`scripts/demo --json`)."""
    result, _ = setup(checkout)
    assert result.stdout == ""
    assert "installing requirements/run.txt" in result.stderr


def test_setup_follows_changed_requirements(checkout: Path) -> None:
    """New pins are installed into the environment that is there."""
    setup(checkout)
    (checkout / "requirements" / "run.txt").write_text("one==2\n")
    _, did = setup(checkout)
    assert [line.split()[1] for line in did] == ["pip", "pip"]


def test_setup_dev_serves_run_too(checkout: Path) -> None:
    """After `dev` there is nothing to do for `run`; after `run` there is for `dev`."""
    setup(checkout)
    assert setup(checkout, "dev")[1][0].endswith("requirements/dev.txt")
    assert setup(checkout, "run")[1] == []


def test_setup_mends_what_was_broken_off(checkout: Path) -> None:
    """An environment whose making was interrupted is finished by the next run."""
    setup(checkout)
    (checkout / ".venv" / "made-from-run").unlink()
    assert len(setup(checkout)[1]) == 2


def test_setup_refuses_an_old_python(checkout: Path) -> None:
    """Without Python 3.11 or newer: one sentence, nothing made."""
    executable(checkout.parent / "bin" / "python3", "#!/bin/sh\nexit 1\n")
    for name in ("python3.11", "python3.12", "python3.13", "python3.14"):
        executable(checkout.parent / "bin" / name, "#!/bin/sh\nexit 1\n")
    result, _ = setup(checkout)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "Python 3.11 or newer is needed" in result.stderr
    assert not (checkout / ".venv").exists()


def test_setup_fetches_venv_where_debian_left_it_out(checkout: Path) -> None:
    """A Python without ensurepip gets the package that Debian keeps it in."""
    notes = checkout.parent / "notes"
    (checkout.parent / "notes.bare").touch()
    executable(checkout / "scripts" / "packages", f'#!/bin/sh\necho "packages $*" >>"{notes}"; rm "{notes}.bare"\n')
    result, did = setup(checkout)
    assert result.returncode == 0, result.stderr
    assert did[0] == "packages python3.11-venv"


def test_packages_that_are_there_cost_nothing(tmp_path: Path) -> None:
    """Neither apt nor sudo is called when nothing is missing."""
    for name in ("apt-get", "sudo"):
        executable(tmp_path / name, "#!/bin/sh\nexit 99\n")
    result = run(ROOT / "scripts" / "packages", "busybox", "shellcheck", path=f"{tmp_path}:/usr/bin:/bin", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_packages_says_what_is_missing_without_apt(tmp_path: Path) -> None:
    """On a system without apt-get: one sentence with the names."""
    text = (ROOT / "scripts" / "packages").read_text().replace("command -v apt-get", "command -v no-apt-get")
    executable(tmp_path / "packages", text)
    said = run(tmp_path / "packages", "certfleet-none", path="/usr/bin:/bin", cwd=tmp_path)
    assert said.returncode == 1
    assert said.stderr == (
        "certfleet: missing: certfleet-none; there is no apt-get here, install them your way and try again\n"
    )


def test_packages_without_root_says_what_root_has_to_do(tmp_path: Path) -> None:
    """Who is not root and may not sudo gets the command that root has to run."""
    executable(tmp_path / "id", "#!/bin/sh\necho 1000\n")
    executable(tmp_path / "sudo", "#!/bin/sh\necho 'not allowed' >&2\nexit 1\n")
    executable(tmp_path / "apt-get", "#!/bin/sh\nexit 99\n")
    said = run(ROOT / "scripts" / "packages", "certfleet-none", path=f"{tmp_path}:/usr/bin:/bin", cwd=tmp_path)
    assert said.returncode == 1
    assert said.stderr.endswith("as root it is: apt-get install certfleet-none\n")


def test_packages_asks_apt_for_the_missing_ones_only(tmp_path: Path) -> None:
    """What is there is not named to apt."""
    notes = tmp_path / "notes"
    executable(tmp_path / "id", "#!/bin/sh\necho 1000\n")
    executable(tmp_path / "sudo", f'#!/bin/sh\necho "$*" >>"{notes}"\n')
    executable(tmp_path / "apt-get", "#!/bin/sh\nexit 0\n")
    path = f"{tmp_path}:/usr/bin:/bin"
    said = run(ROOT / "scripts" / "packages", "certfleet-none", "busybox", "nginx-light", path=path, cwd=tmp_path)
    assert said.returncode == 0
    assert said.stdout == ""
    assert notes.read_text().split("packages ")[1] == "certfleet-none\n"
