"""The CA's limits mirrored in Redis: buckets, their keys, and the limits as data."""
