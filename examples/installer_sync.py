"""Fetch packages in an ordinary program: show the plan first, then fetch exactly what was shown.

Usage::

    python examples/installer_sync.py py-multidict@6.1.0 --to packages [--for-nodes]

It uses the small signed mirror beside this file. `Client` has the methods of `AsyncClient`
(installer_async.py shows events and time limits) and works inside a running event loop too.
"""

from __future__ import annotations

import argparse
import os
import sys

import cachefetch

HERE = os.path.dirname(os.path.abspath(__file__))

#: The machines that the binaries are for, where that is not the machine this runs on.
NODES = cachefetch.Host(
    platform="linux", os="debian12", target="x86_64_v3", libc=cachefetch.Libc("glibc", "2.36")
)


def install(specs: list[str], to: str, host: cachefetch.Host | None) -> int:
    """Return the exit code: 0, or why there is nothing to install."""
    mirror, key = os.path.join(HERE, "mirror"), os.path.join(HERE, "mirror.pub.asc")
    with cachefetch.Client(mirrors=[mirror], keys=[key]) as client:
        plan = client.resolve(*specs, host=host)
        for root in plan.roots:
            # Nothing fitting is an answer, not an exception: it says how many builds each rule dropped.
            print(f"{root.query}: {f'/{root.chosen.hash}' if root.chosen else root.funnel()}")
        if plan.status != "ok":
            return plan.exit_code
        print("with", ", ".join(f"{package.name}@{package.version}" for package in plan.closure))
        print("this host must provide", ", ".join(plan.host_provides))
        receipt = client.fetch(resolution=plan, host=host, to=to)
    for item in receipt.items:
        print(item.path)
    return 0


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Fetch verified binaries from the example mirror.")
    parser.add_argument("specs", nargs="+")
    parser.add_argument("--to", required=True, metavar="DIR")
    parser.add_argument("--for-nodes", action="store_true", help="for NODES, not for this machine")
    arguments = parser.parse_args()
    try:
        return install(arguments.specs, arguments.to, NODES if arguments.for_nodes else None)
    except cachefetch.SpecSyntaxError as error:
        print(f"{error.caret()}\n{error.message}", file=sys.stderr)
        return error.exit_code
    except cachefetch.CachefetchError as error:
        print(f"{error.message}\n{error.hint}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
