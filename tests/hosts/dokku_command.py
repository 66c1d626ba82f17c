"""A stand-in for the `dokku` command, run by sshd for whatever a key of Dokku's asks: `dokku WORDS`.

It keeps Dokku's layout (/home/dokku/<app>/tls/server.crt, nginx.conf, nginx.conf.d/, VHOST), its words, its exit
statuses and its order of steps, as in plugins/certs and plugins/nginx-vhosts of Dokku 0.38, and it drives the host's
real nginx. It is stricter: what Dokku would let pass although its documentation does not promise it (other names in
the archive, a key that does not fit, standard input where none is wanted) goes to /home/dokku/violations.

It runs as root, where Dokku itself has a user `dokku` and sudo rules for nginx; it has no containers, no plugins,
no other proxies, and every app counts as deployed when its nginx.conf is there.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NoReturn

ROOT = Path("/home/dokku")
VIOLATIONS = ROOT / "violations"
FLAGS = ("dir", "enabled", "hostnames", "expires-at", "issuer", "starts-at", "subject", "verified")
NO_SUCH_APP = 20

_SITE = """\
server {{
  listen      [::]:80;
  listen      80;
  server_name {names};
{plain}
}}
"""
_REDIRECT = """\
  include {root}/{app}/nginx.conf.d/*.conf;
  location / {{
    return 301 https://$host:443$request_uri;
  }}
"""
_PROXIED = """\
  location    / {{
    return 200 "{app}\\n";
  }}
  include {root}/{app}/nginx.conf.d/*.conf;
"""
_TLS = """\
server {{
  listen      [::]:443 ssl;
  listen      443 ssl;
  server_name {names};
  ssl_certificate           {root}/{app}/tls/server.crt;
  ssl_certificate_key       {root}/{app}/tls/server.key;
{proxied}
}}
"""


def say(line: str) -> None:
    """On standard output, where Dokku says most things."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def complain(line: str) -> None:
    """On standard error."""
    sys.stderr.write(f"{line}\n")


def fail(message: str, status: int = 1) -> NoReturn:
    """As `dokku_log_fail` does."""
    complain(f" !     {message}")
    raise SystemExit(status)


def violation(what: str) -> None:
    """Something that works today, and that nobody promised."""
    with VIOLATIONS.open("a") as file:
        file.write(f"{' '.join(sys.argv[1:])}: {what}\n")


def app_directory(app: str) -> Path:
    """Where the app is. Fails when there is none."""
    if not re.match("[a-z0-9]", app):
        fail("App name must begin with lowercase alphanumeric character")
    if not (ROOT / app).is_dir():
        fail(f"App {app} does not exist", NO_SUCH_APP)
    return ROOT / app


def openssl(*words: str, text: str | None = None) -> str:
    """What OpenSSL's command says; empty when it fails."""
    done = subprocess.run(["openssl", *words], input=text, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout if done.returncode == 0 else ""


def enabled(app: Path) -> bool:
    """Whether the app has a certificate."""
    return (app / "tls" / "server.crt").exists() and (app / "tls" / "server.key").exists()


# ------------------------------------------------------------------------------------------------ certs


def certs_add(app_name: str = "", *files: str) -> None:
    """certs:add, certs:update: the archive on standard input."""
    if not app_name:
        fail("Please specify an app to run the command on")
    app = app_directory(app_name)
    if files:
        fail("CRT file specified not found, please check file paths")
    if os.isatty(0):
        fail("Tar archive containing server.crt and server.key expected on stdin")
    found = unpacked(sys.stdin.buffer.read())
    for suffix in (".crt", ".key"):
        count = sum(name.endswith(suffix) for name in found)
        if count == 0:
            fail(f"Tar archive is missing {suffix} file")
        if count > 1:
            fail(f"Tar archive contains more than one {suffix} file")
    if list(found) != ["server.crt", "server.key"]:
        violation(f"the archive holds {list(found)}")
    certificate = next(content for name, content in found.items() if name.endswith(".crt"))
    key = next(content for name, content in found.items() if name.endswith(".key"))
    look_at(certificate.decode(), key.decode())
    tls = app / "tls"
    tls.mkdir(exist_ok=True)
    for name, content in (("server.crt", certificate), ("server.key", key)):
        (tls / name).unlink(missing_ok=True)
        (tls / name).write_bytes(content)
        (tls / name).chmod(0o640)
    tls.chmod(0o750)
    build_config(app_name)


def unpacked(archive: bytes) -> dict[str, bytes]:
    """As `tar xvf -`: names on standard output, and nothing else happens when the archive is broken."""
    content: dict[str, bytes] = {}
    if len(archive) % 512 or archive[-1024:].strip(b"\0"):
        complain("tar: Unexpected EOF in archive\ntar: Error is not recoverable: exiting now")
        raise SystemExit(2)
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                say(member.name)
                if not member.isfile():
                    violation(f"{member.name} is not a regular file")
                elif not Path(member.name).name.startswith("."):
                    file = tar.extractfile(member)
                    content[member.name] = file.read() if file else b""
    except tarfile.TarError:
        complain("tar: This does not look like a tar archive")
        raise SystemExit(2) from None
    return content


def look_at(certificate: str, key: str) -> None:
    """What Dokku itself leaves to nginx."""
    ours = openssl("x509", "-noout", "-pubkey", text=certificate)
    if not ours:
        violation("server.crt holds no certificate")
    elif ours != openssl("pkey", "-pubout", text=key):
        violation("the key does not fit the certificate")
    if certificate.count("-----BEGIN CERTIFICATE-----") < 2:
        violation("server.crt holds no chain")


def certs_remove(app_name: str = "", *more: str) -> None:
    """certs:remove."""
    del more
    app = app_directory(app_name)
    if not enabled(app):
        fail(f"{app_name} does not have an SSL endpoint")
    say(f"-----> Removing SSL endpoint from {app_name}...")
    shutil.rmtree(app / "tls")
    build_config(app_name)


def certs_show(app_name: str = "", kind: str = "", *more: str) -> None:
    """certs:show APP crt|key."""
    del more
    if not app_name:
        fail("Please specify an app to run the command on")
    app = app_directory(app_name)
    if kind not in {"crt", "key"}:
        fail("specify either 'key' or 'crt'")
    if (ROOT / "no-certs-show").exists():  # as the plugin dokku-acl can have it
        fail(f"User certfleet does not have permissions to run certs:show on {app_name}")
    if not enabled(app):
        fail(f"{app_name} doesn't have an SSL endpoint defined")
    sys.stdout.write((app / "tls" / f"server.{kind}").read_text())


def certs_report(*words: str) -> None:
    """certs:report [APP] [FLAG]."""
    flag = next((word for word in words if word.startswith("--")), "")
    names = [word for word in words if not word.startswith("--")]
    if flag and flag.removeprefix("--ssl-") not in FLAGS:
        fail(f"Invalid flag passed, valid flags: {' '.join(f'--ssl-{name}' for name in FLAGS)}")
    for name in names or sorted(entry.name for entry in ROOT.iterdir() if (entry / "VHOST").is_file()):
        values = facts(app_directory(name))
        if flag:
            value = values[flag.removeprefix("--ssl-")]
            if not value:
                fail("not deployed")
            say(value)
            continue
        say(f"=====> {name} ssl information")
        for key, value in values.items():
            say(f"       {'Ssl ' + key.replace('-', ' ') + ':':<30} {value:<25}")


def facts(app: Path) -> dict[str, str]:
    """What certs:report knows."""
    values = dict.fromkeys(FLAGS, "")
    values |= {"dir": f"{app}/tls", "enabled": "true" if enabled(app) else "false"}
    if enabled(app):
        certificate = str(app / "tls" / "server.crt")
        text = openssl("x509", "-in", certificate, "-noout", "-text")
        for key, label in (("expires-at", "Not After :"), ("starts-at", "Not Before:"), ("issuer", "Issuer:")):
            values[key] = next((line.split(label)[1].strip() for line in text.splitlines() if label in line), "")
        names = re.findall(r"DNS:([^,\s]+)", text)
        values["hostnames"] = " ".join(sorted(set(names)))
        values["subject"] = openssl("x509", "-in", certificate, "-noout", "-subject").partition("=")[2].strip()
        values["verified"] = "self signed"
    return values


# ------------------------------------------------------------------------------------------------ nginx


def build_config(app_name: str) -> None:
    """As the triggers post-certs-update and post-certs-remove: write the app's nginx.conf, test, reload."""
    app = ROOT / app_name
    names = " ".join((app / "VHOST").read_text().split())
    say(f"-----> Configuring {names}...(using built-in template)")
    words = {"app": app_name, "root": ROOT, "names": names}
    proxied = _PROXIED.format(**words)
    site = _SITE.format(**words, plain=_REDIRECT.format(**words) if enabled(app) else proxied)
    if enabled(app):
        say("-----> Creating https nginx.conf")
        site += _TLS.format(**words, proxied=proxied)
    else:
        say("-----> Creating http nginx.conf")
    (app / "nginx.conf").write_text(site)
    validate()
    say("       Reloading nginx")
    if (ROOT / "no-reload").exists():  # a test's: the service manager says that it is done
        return
    subprocess.run(["nginx", "-s", "reload"], check=True, timeout=20)


def validate(*words: str) -> None:
    """nginx:validate-config."""
    del words
    done = subprocess.run(["nginx", "-t"], capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        complain(done.stderr.rstrip())
        raise SystemExit(done.returncode)


def version(*words: str) -> None:
    """Which Dokku this stands in for."""
    del words
    say("dokku version 0.38.21")


COMMANDS = {
    "certs:add": certs_add,
    "certs:update": certs_add,
    "certs:remove": certs_remove,
    "certs:show": certs_show,
    "certs:report": certs_report,
    "nginx:validate-config": validate,
    "version": version,
}


def main() -> None:
    """Run one command."""
    os.environ["PATH"] = f"/usr/sbin:/sbin:/usr/bin:/bin:{os.environ.get('PATH', '')}"
    words = sys.argv[1:]
    if not words:
        say("Usage: dokku [--quiet|--trace|--force] COMMAND <app> [command-specific-options]")
        return
    command = COMMANDS.get(words[0])
    if command is None:
        fail(f"`{words[0]}` is not a dokku command.\n !     See `dokku help` for a list of available commands.")
    if words[0] not in {"certs:add", "certs:update"} and not os.isatty(0) and sys.stdin.buffer.read(1):
        violation("standard input where none is wanted")
    command(*words[1:])


if __name__ == "__main__":
    main()
