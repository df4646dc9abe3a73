"""The command line, as the functional tests call it."""

from tests.functional.conftest import cli

__all__ = ["cli"]
