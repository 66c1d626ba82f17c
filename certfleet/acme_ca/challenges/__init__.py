"""Ways to prove control of a name (RFC 8555 §8)."""
