"""Installing, on real parts."""
