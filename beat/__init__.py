"""The schedule, and who holds its lock."""
