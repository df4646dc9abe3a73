"""pysequoia, loaded with its first use: where nothing is signed it is not needed, and it takes 4 ms with `datetime`."""

from __future__ import annotations

__all__ = ["Cert", "Packet", "PacketPile", "Sig", "SignatureType", "Tag", "verify"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pysequoia import Cert, Sig, verify
    from pysequoia.packet import Packet, PacketPile, SignatureType, Tag
else:

    def __getattr__(name):
        if name.startswith("__"):  # asked by the import itself
            raise AttributeError(name)
        import pysequoia
        import pysequoia.packet

        found = globals()[name] = getattr(pysequoia if hasattr(pysequoia, name) else pysequoia.packet, name)
        return found
