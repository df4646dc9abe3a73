"""``cachefetch host``: what was detected, from where, and what stops the next CPU target."""

from __future__ import annotations

from .options import add_host, add_output, host_from
from .report import document, line

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from ..resolver.model import Host


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_host(parser)
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Detect and print."""
    from ..blocking import Client

    with Client() as client:
        host = host_from(args, client) or client.host()
    if args.json:
        document({"schema": "cachefetch/host/1", **host.to_dict()})
    else:
        _print(host)
    return 0


def _print(host: Host) -> None:
    compilers = ", ".join(str(compiler) for compiler in host.compilers) or "none found"
    facts = {
        "platform": host.platform,
        "os": host.os,
        "target": host.target,
        "libc": str(host.libc) if host.libc else "unknown",
        "compilers": compilers,
    }
    for name, value in facts.items():
        source = host.sources.get(name, "")
        line(f"{name:10} {value}" + (f"   ({source})" if source else ""))
    if "target" not in host.overridden:
        from ..resolver.host.detect import missing_for_next

        for target, features in missing_for_next(host.target):
            line(f"{'':10} not {target}: lacks {', '.join(features)}")
