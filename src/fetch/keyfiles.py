"""A cheap look at the files of trusted keys, for commands that use no key and must not load OpenPGP for it.

What it finds could not be used by `fetch` either. `keys.load_trusted` finds more: it reads the keys.
"""

from __future__ import annotations

import binascii
import os
import re

from ..regular import open_regular

#: Bytes. A key with hundreds of signatures has some 100 KB.
MAX_KEY_SIZE = 4 << 20
NAME = re.compile(r"([0-9A-F]{40}(?:[0-9A-F]{24})?)\.asc")
_BLOCK = re.compile(
    rb"\s*-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n]+: [^\r\n]*\r?\n)*\r?\n"
    rb"([A-Za-z0-9+/=\s]+?)(?:\r?\n=[A-Za-z0-9+/]{4})?\r?\n-----END PGP PUBLIC KEY BLOCK-----\s*"
)


def damaged_key_files(directory: str) -> tuple[str, ...]:
    """Return a sentence for each file of the key directory that holds no usable key, with what to do about it."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".asc"))
    except FileNotFoundError:
        return ()
    except OSError as error:
        return (f"trusted keys cannot be listed: {directory}: {error.strerror or error}",)
    found = ((os.path.join(directory, name), _problem(os.path.join(directory, name), name)) for name in names)
    return tuple(
        f"key file {path} is not used, {problem}: trust the key again with `cachefetch key trust FILE`, or remove it"
        for path, problem in found
        if problem
    )


def _problem(path: str, name: str) -> str:
    if not NAME.fullmatch(name):
        return "it is not named after its key"
    try:
        with open_regular(path) as file:
            data = file.read(MAX_KEY_SIZE + 1)
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    block = _BLOCK.fullmatch(data) if len(data) <= MAX_KEY_SIZE else None
    try:
        packets = binascii.a2b_base64(block[1]) if block else b""
    except binascii.Error:
        packets = b""
    return "" if packets and packets[0] & 0x80 else "it is no public key or is damaged"
