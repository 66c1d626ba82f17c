"""The real parts: Redis, Pebble, nginx."""
