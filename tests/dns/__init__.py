"""Tests of TXT records in zones, on BIND."""
