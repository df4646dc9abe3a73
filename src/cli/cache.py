"""``cachefetch cache info|gc|verify``: what was fetched: how much it is, what nobody needs, what is damaged."""

from __future__ import annotations

import os

from ..errors import StoreError, UsageError
from .options import add_output
from .report import document, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from ..fetch.store.cas import Store
    from ..fetch.store.keep import Garbage


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("action", choices=("info", "gc", "verify"))
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="/HASH|FILE",
        help="gc: keep these packages and what they need; a FILE is a lock file, or a list of hashes; repeatable",
    )
    parser.add_argument("--yes", action="store_true", help="gc: remove; otherwise only say what would go")
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Do the action on the store of this user."""
    from ..config import load
    from ..fetch.store.cas import Store

    config = load()
    store = Store(config.store_dir, own=config.notes_dir)
    if args.action == "gc":
        return _gc(store, args)
    if args.keep or args.yes:
        raise UsageError(f"--keep and --yes are for `cachefetch cache gc`, not for {args.action}")
    return _info(store, args) if args.action == "info" else _verify(store, args)


def _info(store: Store, args: argparse.Namespace) -> int:
    from ..fetch.store.keep import info

    found = info(store)
    if args.json:
        document(found.to_dict())
    else:
        line(f"{found.root}: {found.blobs} blobs, {found.blob_bytes} bytes; {found.manifests} manifests")
        reserved = (
            f", {found.partial_disk_bytes} reserved" if found.partial_disk_bytes > found.partial_bytes else ""
        )
        line(f"work in progress: {found.partial} files, {found.partial_bytes} bytes{reserved}")
        line(f"free: {found.free_bytes} bytes")
    return 0


def _gc(store: Store, args: argparse.Namespace) -> int:
    from ..fetch.store.keep import garbage, hashes_in, held, remove, with_closure

    roots: set[str] = set()
    for what in args.keep:
        found = hashes_in(what if what.startswith("/") and not os.path.exists(what) else _read(what))
        if not found:
            raise UsageError(f"--keep {what}: no full hash in it", hint="a hash has 32 characters: /HASH")
        if found.isdisjoint(held(store)):
            raise UsageError(
                f"--keep {what}: the store {store.root} has no such package; nothing was removed",
                hint="check the hash, or leave it out; a FILE must name one package of the store at least",
            )
        roots |= found
    if args.yes:
        with store.alone():  # or a fetch would lose what it counts on
            doomed = garbage(store, with_closure(store, roots))
            failed = remove(store, doomed)
    else:
        doomed, failed = garbage(store, with_closure(store, roots)), {}
    _tell_gc(doomed, failed, args)
    return StoreError.exit_code if failed else 0


def _tell_gc(doomed: Garbage, failed: Mapping[str, StoreError], args: argparse.Namespace) -> None:
    paths = [path for path in doomed.paths if path not in failed]
    if args.json:
        document(
            {
                "schema": "cachefetch/cache-gc/1",
                "removed": args.yes,
                "paths": paths,
                "failed": [{"path": path, "message": error.message} for path, error in failed.items()],
                "bytes": doomed.size,
                "kept": doomed.kept,
            }
        )
    else:
        for path in paths:
            line(path)
    words = "removed" if args.yes else "would go"
    rest = f"; {len(failed)} could not be removed" if failed else ""
    say(f"{len(paths)} files {words}, {doomed.size} bytes; {doomed.kept} packages stay{rest}", args)
    for error in failed.values():
        say(f"error: {error.message}", args)
    if not args.yes and paths:
        say("nothing was removed: --yes does it", args)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise UsageError(
            f"--keep {path}: {error.strerror}", hint="/HASH, or a file that has hashes"
        ) from error


def _verify(store: Store, args: argparse.Namespace) -> int:
    """Recompute every digest; damage is exit 9, and the next fetch repairs it."""
    from ..fetch.store.keep import damaged

    sizes: list[int] = []
    bad = damaged(store, sizes.append)
    if bad:
        store.notes.forget()  # they vouched for a file that has changed without any trace
    if args.json:
        document(
            {
                "schema": "cachefetch/cache-verify/1",
                "status": "damaged" if bad else "ok",
                "blobs": len(sizes),
                "bytes": sum(sizes),
                "problems": [{"path": path, "what": what} for path, what in bad],
            }
        )
    else:
        for path, what in bad:
            line(f"{'damaged' if what == 'digest' else what}  {path}")
    say(f"{len(sizes)} blobs checked, {sum(sizes)} bytes; {len(bad)} damaged", args)
    if bad:
        say(
            "hint: fetch the package again, which replaces a damaged blob; remove what is no file by hand",
            args,
        )
    return 9 if bad else 0
