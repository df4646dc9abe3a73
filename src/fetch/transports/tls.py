"""TLS over a blocking socket, with large reads: as it is in `ssl`, each record costs two system calls and a wait.

Its records are decrypted from memory instead, all that came in one read. For one thread at a time.
"""

from __future__ import annotations

import ssl

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

#: Much of what a fast link brings between two looks, and little memory for each connection.
_READ_BYTES = 512 << 10


class TlsStream:
    """The client's end of a TLS connection over `plain`, with the calls of a socket that the thin transport uses.

    Raises:
        ssl.SSLError, OSError: the handshake failed, or took longer than the time-out that `plain` has.
    """

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._plain = plain
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._coming, self._going, server_hostname=host)
        self._memory = memoryview(bytearray(1 << 14))
        while not self._shaken():
            self._flush()
            self._fill()
        self._flush()
        self._memory = memoryview(bytearray(_READ_BYTES))

    def sendall(self, data: bytes) -> None:
        """Send all of `data`."""
        self._tls.write(data)
        self._flush()

    def recv(self, most: int) -> bytes:
        """Return up to `most` bytes, b"" at the end of the connection; errors as `recv_into`."""
        data = bytearray(most)
        return bytes(data[: self.recv_into(memoryview(data))])

    def recv_into(self, view: memoryview) -> int:
        """Fill `view` with all that is there, at least a byte; return how many, 0 at the end of the connection.

        Raises:
            BlockingIOError: nothing came within the kernel's time-out of the socket.
            OSError, ssl.SSLError: the connection broke, or what came is not what was sent.
        """
        got = 0
        while not got:
            try:
                while got < len(view):
                    count: int = self._tls.read(len(view) - got, view[got:])  # type: ignore[assignment]  # into `view`, so a number
                    if not count:
                        return got
                    got += count
            except ssl.SSLWantReadError:
                if not got:
                    self._flush()  # the answer to a change of keys
                    self._fill()
            except (
                ssl.SSLEOFError
            ):  # an end without a farewell: whoever knows the length sees what is missing
                return got
        return got

    def pending(self) -> bool:
        """Return True when bytes came that nobody read."""
        return bool(self._coming.pending or self._tls.pending())

    def _shaken(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def _flush(self) -> None:
        if data := self._going.read():
            self._plain.sendall(data)

    def _fill(self) -> None:
        if got := self._plain.recv_into(self._memory):
            self._coming.write(self._memory[:got])
        else:
            self._coming.write_eof()
