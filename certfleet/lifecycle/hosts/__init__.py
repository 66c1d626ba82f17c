"""Visits to hosts: installing, waves, looks at what is served and installed, and what else is to be done there."""
