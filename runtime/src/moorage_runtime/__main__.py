"""Placeholder entry point; the real one follows in the next commits."""


def main() -> None:
    """Start the program."""
