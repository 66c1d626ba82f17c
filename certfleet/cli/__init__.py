"""What people type."""


def main() -> None:
    """The entry point of `certfleet`."""
    from certfleet.cli.commands import app  # noqa: PLC0415  imports only when it is really run

    app()
