"""A change of an account's key that kills itself (SIGKILL) before or after the CA's answer.

`python -m tests.acme_ca.killed_rollover before|after DIRECTORY BUNDLE EMAIL`: settings come from the environment.
The product has no switch for this, its function is wrapped from here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from certfleet.acme_ca import account_changes
from certfleet.acme_ca.accounts import Accounts
from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.transport import Transport
from certfleet.settings import load_settings
from certfleet.store import open_store
from certfleet.vault import Vault


async def main(when: str, directory: str, bundle: str, email: str) -> None:
    """Change the key, and die."""
    module: Any = account_changes
    inner = module.change_key

    async def deadly(*args: Any) -> None:
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        await inner(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    module.change_key = deadly
    settings = load_settings()
    vault = Vault(settings)
    async with (
        open_store(settings) as store,
        Transport(resolve_ca(directory, bundle=Path(bundle).read_text())) as transport,
    ):
        await account_changes.AccountChanges(Accounts(store, vault), vault, transport).roll_over(email)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
