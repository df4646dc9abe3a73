"""Mirrors in S3 buckets, ``s3://BUCKET/PREFIX``: requests and signatures by obstore (the extra `s3`).

Credentials, region and endpoint come from the URL (``s3://KEY:SECRET@BUCKET/PREFIX?endpoint=https://HOST&region=NAME``),
else from the variables of the AWS tools (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
AWS_ENDPOINT_URL, or Spack's S3_ENDPOINT_URL). Without credentials requests are not signed, as Spack does for public
buckets.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time

from ...errors import (
    AccessError,
    CachefetchError,
    FormatError,
    MirrorError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from . import Head, Reply, patience_of, redact
from .stall import StallGuard
from .status import broken, check_stall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from obstore import GetOptions, GetResult
    from obstore.store import S3Config, S3Store

    from ..limits import Limits
    from . import Sink
    from .errand import Errand
    from .threads import Abort

_URL = re.compile(r"s3://(?:([^/?#@]*)@)?([^/?#]+)/?([^?#]*)(?:\?([^#]*))?", re.I)
#: Setting -> variables that are asked for it when the URL is silent.
_SETTINGS = {
    "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "S3_ENDPOINT_URL"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
}
#: Bytes of a piece of obstore's: small enough that a slow stream is seen to move; and pieces that may wait for us.
_PIECE_BYTES = 16 << 10
_AHEAD = 64
#: Seconds after which a wait looks whether it is still wanted.
_TICK_S = 0.1
_NOTHING = object()


class _RangeIgnored(Exception):
    """The server sent all in place of a part."""


class Pump:
    """One request of obstore's, in a thread of its own: its time-outs are not ours, and it cannot be interrupted.

    Nobody waits for that thread: once we have given up it ends with obstore's own time-out.

    Args:
        ask: sends the request.
        url: for messages.
        abort: asked between waits.
        patience_s: seconds until the answer must have begun.
        limits: what a stalled transfer is.
        ranged: a part was asked for.
    """

    def __init__(
        self,
        ask: Callable[[], GetResult],
        url: str,
        abort: Abort,
        patience_s: float,
        limits: Limits,
        *,
        ranged: bool,
    ) -> None:
        self._url, self._abort, self._limits, self._ranged = url, abort, limits, ranged
        self._patience_s = patience_s
        self._queue: queue.Queue[Any] = queue.Queue(_AHEAD)
        self._left = threading.Event()
        self._asked = time.monotonic()  # before the request: `head` may be called when that is under way
        threading.Thread(target=self._run, args=(ask,), daemon=True, name="s3").start()

    def __enter__(self) -> Pump:
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()

    def head(self) -> GetResult:
        """Return the answer once it begins.

        Raises:
            NotModifiedError, PreconditionError of obstore, _RangeIgnored; else errors of ours.
        """
        try:
            while (found := self._take()) is _NOTHING:
                if time.monotonic() - self._asked >= self._patience_s:
                    raise broken(self._url, "no answer in time")
        except NetworkError as error:
            late = time.monotonic() - self._asked >= self._limits.connect_timeout_s
            if late and "error sending request" in error.message:  # obstore does not say why
                raise broken(self._url, "no connection in time") from None
            raise
        answer: GetResult = found
        return answer

    def pieces(self) -> Iterator[memoryview]:
        """Yield the body as it comes."""
        guard = StallGuard.of(self._limits, time.monotonic)
        while (piece := self._take()) is not None:
            check_stall(guard, 0 if piece is _NOTHING else len(piece), self._url)
            if piece is not _NOTHING:
                yield piece

    def _take(self) -> Any:
        """Return what came, _NOTHING after a moment in which nothing did, None after the end."""
        from obstore.exceptions import NotModifiedError, PreconditionError

        from .threads import Aborted

        if self._abort.set:
            raise Aborted
        try:
            found = self._queue.get(timeout=_TICK_S)
        except queue.Empty:
            return _NOTHING
        if isinstance(found, (NotModifiedError, PreconditionError)):
            raise found
        if isinstance(found, Exception):
            if self._ranged and "non-partial response" in str(found):
                raise _RangeIgnored
            raise _translate(found, self._url) from None
        return found

    def _run(self, ask: Callable[[], GetResult]) -> None:
        try:
            found = ask()
            self._put(found)
            for piece in found.stream(min_chunk_size=_PIECE_BYTES):
                if not self._put(memoryview(piece)):
                    return
            self._put(None)
        except Exception as error:  # noqa: BLE001 -- obstore raises many kinds; they are judged where we wait
            self._put(error)

    def _put(self, item: object) -> bool:
        """Hand on; False when nobody waits any more."""
        while not self._left.is_set():
            try:
                self._queue.put(item, timeout=_TICK_S)
            except queue.Full:
                continue
            return True
        return False


class S3Transport:
    """Reads objects of S3 buckets, in worker threads."""

    network = True

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._stores: dict[tuple[str, str, str], S3Store] = {}

    async def get(self, url: str, *, etag: str | None = None, limit: int) -> Reply:
        """Read a small object whole."""
        from .threads import run_abortable

        return await run_abortable(lambda abort: self._get(abort, url, etag, limit))

    async def receive(
        self, url: str, sink: Sink, *, offset: int = 0, validator: str | None = None, last: int | None = None
    ) -> None:
        """Stream an object from `offset`, or from 0 when `validator` does not hold any more."""
        from .threads import run_abortable

        await run_abortable(lambda abort: self._receive(abort, url, sink, offset, validator, last))

    def run_errands(
        self,
        abort: Abort,  # noqa: ARG002 - as all
        url: str,  # noqa: ARG002 - as all
        errands: Iterator[Errand],
        width: int,  # noqa: ARG002 - as all
        *,
        long: bool = False,  # noqa: ARG002 - as all
    ) -> None:
        """Hand every request back: obstore has no way to wait for many in one thread."""
        from .errand import run_without_requests

        run_without_requests(errands)

    async def aclose(self) -> None:
        """Forget the connections; obstore closes them."""
        self._stores.clear()

    def _get(self, abort: Abort, url: str, etag: str | None, limit: int) -> Reply:
        from obstore.exceptions import NotModifiedError

        with self._ask(url, {"if_none_match": etag} if etag else {}, abort, None) as pump:
            try:
                found = pump.head()
            except NotModifiedError:
                return Reply(304, b"", etag, None)
            body = bytearray()
            for piece in pump.pieces():
                body += piece
                if len(body) > limit:
                    raise FormatError(
                        f"{redact(url)} has more than the {limit} bytes that such a document may have",
                        hint="the mirror is damaged or not a Spack build cache",
                        context={"url": redact(url), "limit": limit},
                    )
            return Reply(200, bytes(body), found.meta.get("e_tag"), None)

    def _receive(
        self, abort: Abort, url: str, sink: Sink, offset: int, validator: str | None, last: int | None
    ) -> None:
        from obstore.exceptions import NotModifiedError, PreconditionError

        options: GetOptions = {}
        if offset and validator:
            options["if_match"] = validator
        if last is not None:
            options["range"] = (offset, last + 1)
        elif offset:
            options["range"] = {"offset": offset}
        try:
            self._pour(self._ask(url, options, abort, sink), sink, offset)
        except (
            PreconditionError,
            NotModifiedError,
            _RangeIgnored,
        ):  # another object by now, or a simple server
            self._pour(self._ask(url, {}, abort, sink), sink, 0)

    def _pour(self, pump: Pump, sink: Sink, offset: int) -> None:
        """Hand the bytes on in large pieces, or what came in `flush_s`; after a cut what came until then."""
        with pump:
            found = pump.head()
            sink.begin(Head(found.meta["size"], offset, found.meta.get("e_tag")))
            buffer, flushed = bytearray(), time.monotonic()
            try:
                for piece in pump.pieces():
                    buffer += piece
                    late = time.monotonic() - flushed >= self._limits.flush_s
                    if len(buffer) >= self._limits.chunk_bytes or late:
                        full, buffer, flushed = buffer, bytearray(), time.monotonic()
                        sink.write(memoryview(full))
            finally:
                if buffer:
                    sink.write(memoryview(buffer))
            sink.end()

    def _ask(self, url: str, options: GetOptions, abort: Abort, sink: Sink | None) -> Pump:
        """Send the request, in a thread of its own."""
        import obstore

        store, key = self._store_for(url)
        patience_s = patience_of(sink, self._limits) + self._limits.connect_timeout_s
        return Pump(
            lambda: obstore.get(store, key, options=options),
            url,
            abort,
            patience_s,
            self._limits,
            ranged="range" in options,
        )

    def _store_for(self, url: str) -> tuple[S3Store, str]:
        """Return the bucket, opened once, and the key of the object."""
        found = _URL.fullmatch(url)
        if not found:
            raise MirrorError(
                f"{redact(url)} is no S3 URL", hint="s3://BUCKET/PREFIX", context={"url": redact(url)}
            )
        which = (found[1] or "", found[2], found[4] or "")
        if which not in self._stores:
            self._stores[which] = self._open(*which)
        return self._stores[which], found[3]

    def _open(self, userinfo: str, bucket: str, query: str) -> S3Store:
        try:
            from obstore.store import S3Store
        except ImportError:
            raise UsageError(
                f"s3://{bucket} needs the package obstore, which is not installed",
                hint="pip install 'cachefetch[s3]'",
            ) from None
        seconds = f"{self._limits.connect_timeout_s:g}s"
        limits = self._limits
        later = f"{limits.connect_timeout_s + limits.first_byte_s + limits.stall_s:g}s"
        try:
            return S3Store(
                bucket,
                config=_settings(userinfo, query),
                # Our own limits are shorter (`Pump`); these end the threads of requests that were given up.
                client_options={
                    "allow_http": True,
                    "connect_timeout": seconds,
                    "read_timeout": later,
                    "timeout": "86400s",
                },
                retry_config={"max_retries": 0},  # the fetch engine retries, and counts
            )
        except Exception as error:  # noqa: BLE001 -- as above
            raise _translate(error, f"s3://{bucket}") from None


def _settings(userinfo: str, query: str) -> S3Config:
    """Return what obstore needs to know of a bucket."""
    from urllib.parse import parse_qs, unquote

    given = parse_qs(query)
    config: S3Config = {"region": "us-east-1"}
    for name, variables in _SETTINGS.items():
        values = [*given.get(name, []), *(os.environ.get(variable, "") for variable in variables)]
        if value := next(filter(None, values), ""):
            config[name] = value  # type: ignore[literal-required]  # the names are keys of S3Config
    user, _, secret = userinfo.partition(":")
    if userinfo:
        config["access_key_id"], config["secret_access_key"] = unquote(user), unquote(secret)
    elif not os.environ.get("AWS_ACCESS_KEY_ID"):
        config["skip_signature"] = True
    return config


def _translate(error: Exception, url: str) -> CachefetchError:
    """Return our error for one of obstore's."""
    from obstore import exceptions

    shown, text = redact(url), _in_short(str(error))
    context = {"url": shown}
    if isinstance(error, (exceptions.NotFoundError, FileNotFoundError)):
        return NotFoundError(f"{shown}: no such object or bucket", hint="check the URL", context=context)
    if isinstance(error, (exceptions.UnauthenticatedError, exceptions.PermissionDeniedError)):
        status = 401 if isinstance(error, exceptions.UnauthenticatedError) else 403
        return AccessError(
            f"{shown}: access denied",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for this bucket",
            context={**context, "status": status},
        )
    refused = re.search(r"status code: (4\d\d)\b", text)
    if refused and refused[1] not in ("408", "429"):  # asking again changes nothing
        return MirrorError(
            f"{shown}: {text}", hint="check URL, endpoint, region and credentials", context=context
        )
    return NetworkError(f"{shown}: {text}", hint="try again", context=context)


def _in_short(text: str) -> str:
    """Return what obstore says without documents of the server, and without URLs, which may hold a signature."""
    text = text.strip().split("\n")[0].partition(": <?xml")[0]
    return re.sub(r"\w+://\S+", "the server", text)[:200]
