"""Looking up names of hosts: the system's call may take many seconds, and nothing can end it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from ... import signals
from .threads import Abort, Aborted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TICK_S = 0.1


def look_up(host: str, port: int, timeout_s: float, abort: Abort) -> list[tuple[Any, ...]]:
    """Return the addresses of a host, as `socket.getaddrinfo` does; a thread that takes too long is left alone.

    Where the system gives no thread for it, the waiting can not be ended.

    Args:
        host: name or address.
        port: of the addresses.
        timeout_s: seconds.
        abort: ends the waiting.

    Raises:
        OSError: no such name; TimeoutError. Aborted.
    """
    with contextlib.suppress(socket.gaierror):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    found: list[list[tuple[Any, ...]]] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def look() -> None:
        signals.leave_to_main()
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            errors.append(error)
        finally:
            done.set()

    ends = time.monotonic() + timeout_s
    try:
        threading.Thread(target=look, daemon=True).start()
    except RuntimeError:  # the system gives no more threads (`ulimit -u`, `ulimit -v`): this one waits itself
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    while not done.wait(_TICK_S):
        if abort.set:
            raise Aborted
        if time.monotonic() > ends:
            raise TimeoutError
    if errors:
        raise errors[0]
    return found[0]
