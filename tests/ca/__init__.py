"""A CA for tests that enforces the limits: Pebble behind a proxy with book-keeping of its own.

Nothing here knows certfleet's buckets: the two sides are written from the CA's documents apart, so that one
can judge the other. `strict.py` is the door.
"""
