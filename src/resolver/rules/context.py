"""What the rules look at: the request, the host, and the specs; with the closures computed once (pure)."""

from __future__ import annotations

from ...values import frozen
from ..closure import Closure, closure_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model import Dag, Host, Node
    from ..spec.values import Spec


@frozen
class Policy:
    """Settings that change which candidates are accepted.

    `libc` is "inferred" (default: an OS label may stand in for a libc that is not recorded) or "recorded".
    `stack` keeps only candidates of that stack, where the source knows stacks.
    """

    libc: str = "inferred"
    stack: str | None = None


class Context:
    """One request against one host, with the closures that were walked.

    Args:
        spec: the request.
        host: the machine that the binaries must run on.
        dag: look-up of nodes.
        policy: settings.
        prefix_exists: tells whether an external's prefix is on this machine; None when it must not be tested
            because the answer is for another host.
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

    def closure(self, node: Node) -> Closure:
        """Return the closure of a candidate. Pages record no edges: theirs is the node alone."""
        if node.hash not in self._closures:
            self._closures[node.hash] = closure_of(node, self.dag)
        return self._closures[node.hash]
