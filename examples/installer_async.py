"""Fetch packages in an asynchronous program: events, a time limit, and errors by what to do about them.

Usage::

    python examples/installer_async.py py-multidict@6.1.0 --to packages
    python examples/installer_async.py py-multidict@6.1.0 --to packages --for-nodes

Without --mirror and --key it uses the small signed mirror beside this file.
"""

from __future__ import annotations

import argparse
import os
import sys

import anyio

import cachefetch
from cachefetch.fetch.events import Event, Planned, Reporter, Retrying, Stored

HERE = os.path.dirname(os.path.abspath(__file__))

#: The machines that the binaries are for, where that is not the machine this runs on.
#: `cachefetch host` on one of them shows these facts.
NODES = cachefetch.Host(
    platform="linux", os="debian12", target="x86_64_v3", libc=cachefetch.Libc("glibc", "2.36")
)


class Lines(Reporter):
    """Print one line for some events. It runs in the event loop, so it must be quick."""

    def on_event(self, event: Event) -> None:
        """Print the event, or ignore it."""
        if isinstance(event, Planned):
            print(f"{event.packages} packages, {event.reused} here already, {event.get_bytes} bytes to get")
        elif isinstance(event, Retrying):
            print(f"  trying again in {event.wait_s:.1f} s: {event.reason}")
        elif isinstance(event, Stored):
            print(f"  verified {event.spec}")


async def install(arguments: argparse.Namespace) -> None:
    """Resolve, say what was chosen and why, fetch."""
    client = cachefetch.AsyncClient(
        mirrors=[arguments.mirror], keys=[arguments.key] if arguments.key else [], reporter=Lines()
    )
    async with client:
        host = NODES if arguments.for_nodes else await client.host()
        with anyio.fail_after(arguments.seconds):  # a cancelled fetch leaves nothing half-done behind
            resolution = await client.resolve(arguments.spec, host=host)
            for root in resolution.roots:
                if root.chosen:
                    chosen = root.chosen
                    print(f"{chosen.name}@{chosen.version}/{chosen.hash[:7]}: 1 of {root.candidates} builds")
            receipt = await client.fetch(resolution=resolution, host=host, to=arguments.to)
    for item in receipt.items:
        print(f"{item.path}  {item.size} bytes, signature {item.signature}")


def report(error: cachefetch.CachefetchError) -> None:
    """Say what went wrong; the class says what can be done about it."""
    if isinstance(error, cachefetch.SpecSyntaxError):
        print(error.caret(), file=sys.stderr)
    if isinstance(error, cachefetch.UsageError):
        advice = "correct the request"
    elif isinstance(error, cachefetch.ResolutionError):
        advice = "build from source, or ask for something else"
    elif isinstance(error, cachefetch.TrustError):
        advice = "stop: nothing was installed, and nobody should retry this without looking"
    elif isinstance(error, cachefetch.MirrorError):
        advice = "try again later, or add another mirror"
    else:
        advice = "look at the store and the mirror"
    print(f"{error.message}\n{error.hint or advice}", file=sys.stderr)


def main() -> int:
    """Read the command line and run; the exit code is that of the command line tool."""
    parser = argparse.ArgumentParser(description="Fetch verified binaries from a Spack build cache.")
    parser.add_argument("spec")
    parser.add_argument("--mirror", default=os.path.join(HERE, "mirror"))
    parser.add_argument("--key", default=os.path.join(HERE, "mirror.pub.asc"), help='"" for none')
    parser.add_argument("--to", required=True, metavar="DIR")
    parser.add_argument("--for-nodes", action="store_true", help="for NODES, not for this machine")
    parser.add_argument("--seconds", type=float, default=600, help="give up after this time")
    arguments = parser.parse_args()
    try:
        anyio.run(install, arguments)
    except cachefetch.CachefetchError as error:
        report(error)
        return error.exit_code
    except TimeoutError:
        print(f"not done after {arguments.seconds} seconds", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
