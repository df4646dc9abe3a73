"""Little memory: do with it, and say so where that cannot be. Batch systems bound the address space (`ulimit -v`)."""

from __future__ import annotations

import errno

from ..errors import StoreError

_STACK = 1 << 20
_M_ARENA_MAX = -8  # of mallopt(3)
#: What the C library says when it has no room for a library, and Python when there is none for a thread.
_NO_ROOM = ("map segment", "shared object descriptor", "zero-fill pages", "Cannot allocate memory")
_FILES = "open files"
_NO_THREAD = ("can't start new thread", "join thread before it is started")


def reserve_little() -> None:
    """Let threads reserve little address space where that is bounded: else each takes 8 MiB of stack and 64 of heap."""
    if address_space() is None:
        return
    import ctypes
    import threading

    threading.stack_size(_STACK)
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    except (OSError, AttributeError):  # another C library, which reserves none
        return


def address_space() -> int | None:
    """Return how many bytes of address space this process may have, None for as many as there are."""
    import resource

    bound = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if bound == resource.RLIM_INFINITY else bound


def exhausted(error: BaseException) -> StoreError | None:
    """Return the error to show for one that comes from "no more memory", threads or files, None for any other."""
    what, cause = "", error
    while not what:
        what = _lacking(cause)
        following = cause.__cause__ or cause.__context__
        if following is None:
            break
        cause = following
    if not what:
        return None
    bound = None if what == _FILES else address_space()
    why = f": it may have {bound >> 20} MiB of address space" if bound is not None else ""
    limits = (
        "`ulimit -n`"
        if what == _FILES
        else "`ulimit -v`"
        if bound is not None
        else "`ulimit -u`, `ulimit -v`"
    )
    return StoreError(
        f"the system gives this process no more {what}{why}",
        hint=f"raise the limit ({limits}, or what the batch system grants), then run the command again: "
        "what is here is kept",
        context={"reason": what},
    )


def _lacking(error: BaseException) -> str:
    """Return what the system did not give, "" for another error."""
    text = str(error)
    if isinstance(error, RuntimeError) and any(words in text for words in _NO_THREAD):
        return "threads"
    if isinstance(error, ImportError) and any(words in text for words in _NO_ROOM):
        return "memory"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return _FILES
    none = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    return "memory" if none else ""
