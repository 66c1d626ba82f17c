"""certfleet: certificates for a fleet, ordered, installed, served and renewed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("certfleet")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"
