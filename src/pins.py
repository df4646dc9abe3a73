"""``NAME@=VERSION/HASH``: enough to fetch without an index, because a manifest's path is made of these three."""

from __future__ import annotations

import re

from .resolver.closure import closure_of
from .resolver.index.query import PageSource, Specs
from .resolver.model import Record
from .values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .resolver.model import Node

_PIN = r"([a-z0-9][a-z0-9_+-]*)@=([A-Za-z0-9_.][A-Za-z0-9_.-]*)\s*/([a-z2-7]{32})"


@frozen
class Pin:
    """One binary, named in full."""

    name: str
    version: str
    hash: str


def parse_pins(texts: Sequence[str]) -> tuple[Pin, ...]:
    """Return the pins when every text is one, else () (then they are specs to be resolved)."""
    found = [re.fullmatch(_PIN, text.strip()) for text in texts]
    return tuple(Pin(one[1], one[2], one[3]) for one in found if one) if all(found) else ()


def closure_nodes(documents: Sequence[Sequence[Node]]) -> tuple[Node, ...]:
    """Return the nodes to fetch: the link and run closure of spec documents (root first), without externals."""
    nodes = {node.hash: node for document in documents for node in document}
    specs = Specs([PageSource("", (Record(node, node.external is None) for node in nodes.values()))])
    found = [record.node for one in documents for record in closure_of(one[0], specs).records]
    return tuple({node.hash: node for node in found}.values())
