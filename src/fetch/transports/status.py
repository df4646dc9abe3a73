"""What an HTTP status and a redirect mean to us; shared by the two transports for http and https. Pure."""

from __future__ import annotations

import re

from ...errors import AccessError, MirrorError, NetworkError, NotFoundError
from . import redact
from .ranges import retry_after

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .stall import StallGuard

RETRY_LATER = "the mirror or the network may recover: try again, or add a second mirror"
RANGE_REFUSED = 416
REDIRECTS = {301, 302, 303, 307, 308}
_LATER_STATUS = {408, 425, 429}
_THROTTLED = {429, 503}
_OK = {200, 206, 304}
_URL = re.compile(r"[a-z]+://\S+", re.I)


def check_status(status: int, reason: str, retry: str | None, url: str, now: float) -> None:
    """Raise our error for a status that carries no object.

    Args:
        status, reason: of the status line.
        retry: the header Retry-After, if there is one.
        url: what was asked for; shown without secrets.
        now: Unix time, for a Retry-After that is a date.
    """
    if status in _OK:
        return
    shown = redact(url)
    context = {"url": shown, "status": status}
    if status in (404, 410):
        raise NotFoundError(f"{shown} does not exist (HTTP {status})", hint="", context=context)
    if status in (401, 403):
        raise AccessError(
            f"{shown}: access denied (HTTP {status})",
            hint="give user and password in the mirror URL; some object stores also answer 403 for what is absent",
            context=context,
        )
    if status in _LATER_STATUS or status >= 500:
        raise NetworkError(
            f"{shown}: HTTP {status} {reason}".rstrip(),
            hint=RETRY_LATER,
            context=context,
            retry_after=retry_after(retry, now),
            throttled=status in _THROTTLED,
        )
    why = ""
    if status == 400 and url[:6].lower() == "https:":  # nginx, for one, has no other status for it
        why = "; a server that wants a client certificate may answer so: client_cert in [network] of the configuration"
    raise MirrorError(f"{shown}: unexpected HTTP {status}{why}", hint="check the mirror URL", context=context)


def refuse_downgrade(url: str, target_scheme: str) -> None:
    """Raise MirrorError when a redirect leads from https to something that can be read on the way."""
    if url[:6].lower() == "https:" and target_scheme != "https":
        raise MirrorError(
            f"{redact(url)} redirects from https to {target_scheme}, which is refused",
            hint="tell the owner of the mirror, or name the final URL yourself if you accept it",
            context={"url": redact(url), "reason": "downgrade"},
        )


def check_stall(guard: StallGuard, received: int, url: str) -> None:
    """Raise NetworkError when the window that just ended brought too little."""
    if guard.stalled(received):
        raise NetworkError(
            f"{redact(url)}: less than {guard.bytes_per_s} bytes a second for {guard.window_s:g} s",
            hint=RETRY_LATER,
            context={"url": redact(url), "reason": "stalled", "silent": True},
        )


def wrong_range(url: str, asked: int, header: str | None) -> NetworkError:
    """Return the error for a 206 that does not start where it should."""
    return NetworkError(
        f"{redact(url)}: asked for bytes from {asked} on, the server sent range {header!r:.80}",
        hint=RETRY_LATER,
        context={"url": redact(url), "reason": "wrong-range"},
    )


def broken(url: str, what: str, error: BaseException | None = None, *, via: str = "") -> NetworkError:
    """Return the error for a connection that failed and may work again; `via` names the proxy."""
    shown = redact(url)
    return NetworkError(
        f"{shown}: {what}{via}{detail(error)}",
        hint=RETRY_LATER,
        context={
            "url": shown,
            **({"reason": "connect"} if what.startswith("no connection") else {}),
            **({"silent": True} if what.endswith("in time") else {}),
        },
    )


def tls_failed(url: str, error: BaseException) -> MirrorError:
    """Return the error for a handshake or certificate that is refused."""
    shown = redact(url)
    return MirrorError(
        f"{shown}: TLS failed: {first_line(error)}",
        hint="set SSL_CERT_FILE to the CA of this mirror, and check the date of this machine",
        context={"url": shown, "reason": "tls"},
    )


def detail(error: BaseException | None) -> str:
    """Return `` (text of the error)``, or nothing."""
    text = first_line(error) if error is not None else ""
    return f" ({text})" if text else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, without secrets of URLs."""
    text = getattr(error, "strerror", None) or str(error)
    line = str(text).split("\n", 1)[0][:200]
    return _URL.sub(lambda found: redact(found[0]), line)
