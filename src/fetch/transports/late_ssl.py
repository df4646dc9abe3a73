"""`ssl`, loaded with its first use: plain HTTP that goes well needs it not, and it takes 7 ms."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    def __getattr__(name: str) -> Any:
        """Return what `ssl` has."""

else:

    def __getattr__(name):
        if name.startswith("__"):  # asked by the import itself
            raise AttributeError(name)
        import ssl

        found = globals()[name] = getattr(ssl, name)
        return found
