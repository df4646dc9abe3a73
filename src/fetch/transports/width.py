"""How many requests a host gets at the same time: halved when it asks for patience, raised slowly again. Pure."""

from __future__ import annotations


class Width:
    """Additive increase, multiplicative decrease, between 1 and `most` (where it starts).

    The requests that were on their way at a decrease tell nothing new, so only the first failure of them counts.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._width = float(most)
        self._ignored = 0  # outcomes still to come of requests that were sent before the last decrease

    @property
    def value(self) -> int:
        """Return the number of requests that may be under way."""
        return int(self._width)

    def succeeded(self) -> None:
        """An answer came: one more after as many answers as there are requests under way."""
        self._ignored = max(0, self._ignored - 1)
        self._width = min(float(self._most), self._width + 1 / self._width)

    def failed(self) -> None:
        """The host asked for patience, or did not answer in time."""
        if self._ignored:
            self._ignored -= 1
            return
        self._ignored = self.value - 1
        self._width = max(1.0, self._width / 2)
