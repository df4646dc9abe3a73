"""cachefetch: resolve, fetch and verify prebuilt binaries from Spack build caches, without Spack.

Library use::

    with cachefetch.Client(mirrors=["https://mirror.example.org/spack"]) as client:
        resolution = client.resolve("hdf5+mpi")
        receipt = client.fetch("hdf5+mpi", to="packages")

`AsyncClient` has the same methods as coroutines; `resolve_sync` and `fetch_sync` are one-liners. Errors are the
subclasses of `CachefetchError`. Names are loaded when first used: importing the package costs nothing.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:  # what type checkers and editors see; at run time the table below
    from .blocking import Client, fetch_sync, resolve_sync
    from .client import AsyncClient
    from .config import Config, Mirror
    from .errors import (
        CachefetchError,
        IntegrityError,
        MirrorError,
        ResolutionError,
        SpecSyntaxError,
        StoreError,
        TrustError,
        UsageError,
    )
    from .fetch.model import Receipt
    from .resolver.model import Compiler, Host, Libc
    from .resolver.resolution import Resolution

_EXPORTS = {
    "AsyncClient": ".client",
    "Client": ".blocking",
    "fetch_sync": ".blocking",
    "resolve_sync": ".blocking",
    "CachefetchError": ".errors",
    "IntegrityError": ".errors",
    "MirrorError": ".errors",
    "ResolutionError": ".errors",
    "SpecSyntaxError": ".errors",
    "StoreError": ".errors",
    "TrustError": ".errors",
    "UsageError": ".errors",
    "Host": ".resolver.model",
    "Libc": ".resolver.model",
    "Compiler": ".resolver.model",
    "Resolution": ".resolver.resolution",
    "Receipt": ".fetch.model",
    "Mirror": ".config",
    "Config": ".config",
}

__all__ = [
    "AsyncClient",
    "CachefetchError",
    "Client",
    "Compiler",
    "Config",
    "Host",
    "IntegrityError",
    "Libc",
    "Mirror",
    "MirrorError",
    "Receipt",
    "Resolution",
    "ResolutionError",
    "SpecSyntaxError",
    "StoreError",
    "TrustError",
    "UsageError",
    "__version__",
    "fetch_sync",
    "resolve_sync",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(module, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
