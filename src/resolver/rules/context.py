"""What the rules look at: the request, the host, and the specs; with the closures computed once (pure)."""

from __future__ import annotations

from ...values import frozen
from ..closure import Closure, closure_of, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ..closure import Memo
    from ..model import Dag, Host, Node
    from ..spec.values import Spec


#: Preference of providers, best first (Spack's default `packages:all:providers`); others come last.
PROVIDERS: Mapping[str, tuple[str, ...]] = {
    "blas": ("openblas", "amdblis"),
    "lapack": ("openblas", "amdlibflame"),
    "mpi": ("openmpi", "mpich"),
    "zlib-api": ("zlib-ng", "zlib"),
    "iconv": ("libiconv",),
    "jpeg": ("libjpeg-turbo", "libjpeg"),
    "pkgconfig": ("pkgconf", "pkg-config"),
    "fftw-api": ("fftw", "amdfftw"),
    "scalapack": ("netlib-scalapack", "amdscalapack"),
    "gl": ("glx", "osmesa"),
}


@frozen
class Policy:
    """Settings that change which candidates are accepted.

    `libc` is "inferred" (default: an OS label may stand in for a libc that is not recorded) or "recorded".
    `stack` keeps only candidates of that stack, where the source knows stacks. `providers` replaces the preference of
    single virtuals (key K8), best provider first.
    """

    libc: str = "inferred"
    stack: str | None = None
    providers: Mapping[str, tuple[str, ...]] = {}


class Context:
    """One request against one host, with the closures that were walked.

    Args:
        spec: the request.
        host: the machine that the binaries must run on.
        dag: look-up of nodes.
        policy: settings.
        prefix_exists: tells whether an external's prefix is on this machine; None when it must not be tested
            because the answer is for another host.

    `asking` and `on` give contexts that share what is known of the closures already.
    """

    def __init__(
        self,
        spec: Spec,
        host: Host,
        dag: Dag,
        policy: Policy | None = None,
        prefix_exists: Callable[[str], bool] | None = None,
    ) -> None:
        self.spec, self.host, self.dag = spec, host, dag
        self.policy = policy if policy is not None else Policy()
        self.prefix_exists = prefix_exists
        self._closures: dict[str, Closure] = {}
        self._walked: Memo = {}
        self._dependencies: dict[str, tuple[Node, ...]] = {}
        #: What a gate found out about a closure node, by gate and hash: candidates share most of their nodes.
        self.judged: dict[str, dict[str, Any]] = {}
        #: Hashes that the prefix of a ``/hash`` request fits, when they are several; `rank` sets it.
        self.ambiguous: tuple[str, ...] = ()
        #: Packages that edges in the indexes name as providers, by virtual, where that was looked up.
        self.labelled: dict[str, tuple[str, ...]] = {}

    def asking(self, spec: Spec) -> Context:
        """Return the context of another request for the same host."""
        made = self.on(self.host)
        made.spec, made.judged = spec, self.judged
        return made

    def on(self, host: Host) -> Context:
        """Return the context of the same request on another host."""
        made = Context(self.spec, host, self.dag, self.policy, self.prefix_exists)
        made._closures, made._walked, made._dependencies = self._closures, self._walked, self._dependencies
        made.labelled = self.labelled
        return made

    def providers(self, virtual: str) -> tuple[str, ...]:
        """Return the packages that may stand for a virtual, best first; () for a name that is none."""
        usual = self.policy.providers.get(virtual) or PROVIDERS.get(virtual, ())
        return (*usual, *(name for name in self.labelled.get(virtual, ()) if name not in usual))

    def walk_all(self, nodes: Sequence[Node]) -> None:
        """Look up the closures of several candidates side by side, a level at a time."""
        walk(nodes, self.dag, self._walked)

    def closure(self, node: Node) -> Closure:
        """Return the closure of a candidate. Pages record no edges: theirs is the node alone."""
        if node.hash not in self._closures:
            self._closures[node.hash] = closure_of(node, self.dag, self._walked)
        return self._closures[node.hash]

    def known_closure(self, node: Node) -> Closure | None:
        """Return the closure of a candidate if it was walked; its own attributes may have ruled it out before."""
        return self._closures.get(node.hash)

    def below(self, node: Node) -> tuple[Node, ...]:
        """Return the closure of a candidate without itself, externals last."""
        closure = () if node.partial else self.closure(node).nodes()
        return tuple([each for each in closure if each.hash != node.hash])

    def dependencies(self, node: Node) -> tuple[Node, ...]:
        """Return the closure of a candidate without itself and without externals; () for pages, which record none."""
        found = self._dependencies.get(node.hash)
        if found is None:
            records = () if node.partial else self.closure(node).records
            found = tuple([record.node for record in records if record.node.hash != node.hash])
            self._dependencies[node.hash] = found
        return found
