"""Expiry checks: when a certificate is renewed, and how renewals are spread."""
