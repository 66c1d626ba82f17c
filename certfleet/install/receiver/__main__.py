"""Prints the receiver, for a host that is set up by hand."""

from __future__ import annotations

import sys

from certfleet.install.receiver import program

sys.stdout.write(program())
