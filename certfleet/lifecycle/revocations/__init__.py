"""Revoking at our word, finding what a CA has revoked, and replacing many at once."""
