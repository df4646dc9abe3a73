"""A process of its own that fetches: ``python -m tests.faults.worker STORE URL NAME:VERSION:HASH...``"""

from __future__ import annotations

import json
import sys

import anyio
from tests.faults.mirror import unsigned

from cachefetch.errors import CachefetchError
from cachefetch.fetch.execute import fetch_items
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.model import Wanted
from cachefetch.fetch.store.cas import Store
from cachefetch.fetch.transports import Transports


async def main(store: str, url: str, packages: list[str]) -> int:
    source = unsigned("m", url)
    parts = [text.split(":") for text in packages]
    wanted = [Wanted(name, version, hash_, (source,)) for name, version, hash_ in parts]
    limits = Limits(chunk_bytes=1 << 16)  # so that a killed run leaves something to continue
    transports = Transports(limits)
    try:
        receipt = await fetch_items(wanted, store=Store(store), transports=transports, limits=limits)
    except CachefetchError as error:
        print(json.dumps(error.to_dict()))
        return error.exit_code
    finally:
        await transports.aclose()
    print(json.dumps(receipt.to_dict()))
    return 0


if __name__ == "__main__":
    sys.exit(anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3:]))
