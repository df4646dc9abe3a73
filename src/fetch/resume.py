"""Where a transfer continues. Pure decisions over what a part file and a response say.

The digest of the whole decides in the end, so a prefix from another mirror may be continued too. A digest that is
wrong after a resume blames the prefix first: the part is dropped and the transfer starts over once.
"""

from __future__ import annotations

import json

from ..values import frozen
from .transports import redact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .transports import Head


@frozen
class PartInfo:
    """The sidecar of a part file: where its bytes came from, and what they should become.

    `url` is without credentials; `etag` is the strong validator of the response, None if it had none;
    `sha256` and `size` (bytes) are of the whole blob. `have` is how many bytes of the part count while ranges are
    written behind them, None for all.
    """

    url: str
    etag: str | None
    sha256: str
    size: int
    have: int | None = None

    def encode(self) -> bytes:
        """Return the sidecar's JSON text."""
        return json.dumps(
            {
                "url": self.url,
                "etag": self.etag,
                "sha256": self.sha256,
                "size": self.size,
                "have": self.have,
            }
        ).encode()


@frozen
class Start:
    """The request to make: from byte `offset` on, if the object still has `validator` (None: any)."""

    offset: int
    validator: str | None


def read_info(data: bytes) -> PartInfo | None:
    """Return the sidecar's values, None when it is damaged (a crash may cut it)."""
    try:
        found = json.loads(data)
        url, etag, sha256, size = (found[key] for key in ("url", "etag", "sha256", "size"))
        have = found.get("have")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    texts = isinstance(url, str) and isinstance(sha256, str) and isinstance(etag, str | None)
    numbers = type(size) is int and (have is None or (type(have) is int and have >= 0))
    return PartInfo(url, etag, sha256, size, have) if texts and numbers else None


def usable(info: PartInfo | None, have: int, *, sha256: str, size: int) -> bool:
    """Return True when a part file of `have` bytes with sidecar `info` is a prefix of the wanted blob."""
    return info is not None and info.sha256 == sha256 and info.size == size and 0 < have <= size


def start(info: PartInfo | None, have: int, url: str) -> Start:
    """Return where to continue: at `have`, tied to the validator only when `url` is the one it came from."""
    if info is None or have == 0:
        return Start(0, None)
    return Start(have, info.etag if info.url == redact(url) else None)


def continues(asked: Start, head: Head) -> bool:
    """Return True when the response continues the part.

    False when it starts at 0 instead (200, the range was refused, If-Range did not hold), or when it carries another
    validator than the one that the part has: then the part starts over with the bytes of this response if they
    begin at 0, else with a new request.
    """
    if head.offset != asked.offset:
        return False
    return asked.validator is None or head.etag is None or head.etag == asked.validator
