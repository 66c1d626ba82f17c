"""The CA's side: Pebble behind the front, and small servers for what Pebble never says."""
