"""The demonstration: a private CA, a web server and a fleet on this machine."""
