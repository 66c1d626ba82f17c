"""Putting certificates onto hosts, and proving that they are served."""
