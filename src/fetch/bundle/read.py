"""Read a bundle where it lies: find its volumes, and any file in them, without unpacking (synchronous I/O)."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from itertools import chain, islice, product

from ...errors import FormatError, MirrorError, NotFoundError, TrustError, UsageError
from ...regular import open_regular
from ..verify.openpgp import is_signed, split_cleartext
from .format import (
    BLOCK,
    HEADER_NAME,
    LIST_NAME,
    MAGIC,
    MAX_HEADER_SIZE,
    SUFFIX,
    Header,
    padding,
    read_header,
    read_list,
    read_member_header,
    volume_bytes,
    volume_names,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping, Sequence
    from typing import BinaryIO

    from ...errors import CachefetchError
    from .format import Contents, Entry

SCHEME = "bundle://"
#: Ways to put a divided file together from copies of its volumes that are tried.
_MOST_CHOICES = 64
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume file: its path, its header, the header's text as it stands (maybe signed), where its data starts."""

    path: str
    header: Header
    text: bytes
    data_start: int


class Bundle:
    """A bundle and those of its volumes that are here.

    Attributes:
        header: of one of the volumes; `header.id` names the bundle.
        contents: what the whole bundle holds.
        volumes: the volumes that are here, by number.
        short: volumes that are here and too short or too long; they are not in `volumes`. What stands in every
            volume is read from one of them when none is whole.
        cut: paths of missing volumes of which a file is here that does not even tell what it is, by number.
        beside: paths of missing volumes that lie beside the others and are not to be used, by number.
        refused: missing volumes of which a file is here that must not be believed, by number: path, and why.
        copies: further files of the volumes that are here, by number. A file of the mirror is read from the copy that
            has it right.
        short_copies: files that are not whole, of volumes that are in `volumes` or `short`.
    """

    def __init__(
        self,
        volumes: Sequence[Volume],
        beside: Sequence[Volume] = (),
        refused: Mapping[str, tuple[Volume, CachefetchError]] | None = None,
    ) -> None:
        first, contents = _first_list(volumes)
        self.header = first.header
        self.contents: Contents = contents
        self.volumes: dict[int, Volume] = {}
        self.short: dict[int, Volume] = {}
        self.copies: dict[int, list[Volume]] = {}
        self.short_copies: list[Volume] = []
        for volume in volumes:
            number = volume.header.volume
            if volume.header.volumes != self.header.volumes:
                raise FormatError(
                    f"{volume.path} tells another number of volumes than {first.path}",
                    hint="copy the volume again",
                    context={"file": volume.path},
                )
            whole = os.path.getsize(volume.path) == volume_bytes(self.contents, number, volume.data_start)
            if whole and number in self.volumes:
                self.copies.setdefault(number, []).append(volume)
            elif whole:
                self.volumes[number] = volume
            elif number in self.short:
                self.short_copies.append(volume)
            else:
                self.short[number] = volume
        self.short_copies += [self.short.pop(number) for number in {*self.short} & {*self.volumes}]
        known = {**self.short, **self.volumes}
        self.refused = {
            volume.header.volume: (path, why)
            for path, (volume, why) in (refused or {}).items()
            if volume.header.volume not in known
        }
        unused = {volume.header.volume: volume.path for volume in beside}
        self.beside = {number: path for number, path in unused.items() if number not in known}
        cut = _cut(
            self.header.volumes, next(iter(known.values())).path, {*known, *self.beside, *self.refused}
        )
        self.cut: dict[int, str] = cut
        self._preferred = volumes[0].header.volume
        self._common: Volume | None = None
        self._entries: Mapping[str, Entry] = {entry.file.path: entry for entry in self.contents.entries}

    @property
    def id(self) -> str:
        """The bundle's name: the sha256 of its list."""
        return self.header.id

    @property
    def missing(self) -> tuple[int, ...]:
        """Numbers of the volumes that are not here, or not whole."""
        return tuple(n for n in range(1, self.header.volumes + 1) if n not in self.volumes)

    def find(self, path: str) -> Entry | None:
        """Return the entry of a file of the mirror, None when the bundle does not hold it."""
        return self._entries.get(path)

    def lacking(self, entry: Entry) -> tuple[int, ...]:
        """Return the volumes that are needed for a file and not here."""
        needed = {piece.volume for piece in entry.pieces}
        return tuple(sorted(number for number in needed if number and number not in self.volumes))

    def require(self, path: str) -> Entry:
        """Return the entry of a file that can be read.

        Raises:
            NotFoundError: the bundle does not hold it.
            MirrorError: its volume is not here, or not whole (code "volume-missing").
        """
        entry = self.find(path)
        context = {"bundle": self.id, "file": path}
        if entry is None:
            raise NotFoundError(f"{path} is not in the bundle {self.name}", context=context)
        if lacking := self.lacking(entry):
            cut = [self.short[number].path for number in lacking if number in self.short]
            why = f"of which {' and '.join(cut)} is not whole" if cut else "which is not here"
            error = MirrorError(  # it exists, so it is not "not found"
                f"{path} is in {self.volume_text(lacking)} of the bundle {self.name}, {why}",
                hint="copy the volume again" if cut else "put the volume beside the others",
                context={**context, "volumes": list(lacking)},
            )
            error.code = "volume-missing"
            raise error
        return entry

    def volume_text(self, numbers: Sequence[int]) -> str:
        """Return ``volume 3 of 4``, or ``volumes 2 and 3 of 4``."""
        words = " and ".join(str(number) for number in numbers)
        return f"volume{'s' if len(numbers) > 1 else ''} {words} of {self.header.volumes}"

    @property
    def name(self) -> str:
        """The file name of a volume that is here, for messages."""
        known = self.volumes or self.short
        return os.path.basename(known[min(known)].path)

    def chunks(self, entry: Entry, offset: int = 0, *, volume: int = 0) -> Generator[bytes, None, None]:
        """Yield the bytes of a file from `offset` on; what stands in every volume is read from `volume` if given.

        The digest is the caller's to check. Raises FormatError, OSError.
        """
        place = self._right_copies(entry) if self.copies and not volume else self
        start = 0
        for number, piece in enumerate(entry.pieces):
            skip = min(max(0, offset - start), piece.length)
            if skip < piece.length:
                yield from place.piece(entry, number, skip, volume=volume)
            start += piece.length

    def alone(self, chosen: Mapping[int, Volume] | None = None) -> Bundle:
        """Return this bundle with one file a volume: those of `chosen` (0: for what stands in all), else the first."""
        one = copy(self)
        one.volumes = {**self.volumes, **(chosen or {})}
        one._common = one.volumes.pop(0, None)
        one.copies = {}
        return one

    def _right_copies(self, entry: Entry) -> Bundle:
        """Return this bundle with the copies from which a file has its digest; with the first ones where none has."""
        numbers = sorted({piece.volume for piece in entry.pieces})
        files = [
            [volume, *self.copies.get(number, ())]
            if (volume := self.volumes.get(number))
            else [*self.volumes.values(), *chain.from_iterable(self.copies.values())]
            for number in numbers
        ]
        for choice in islice(product(*files), _MOST_CHOICES):
            found = self.alone(dict(zip(numbers, choice, strict=True)))
            digest = hashlib.sha256()
            with suppress(FormatError, OSError):
                for data in found.chunks(entry):
                    digest.update(data)
                if digest.hexdigest() == entry.file.sha256:
                    return found
        return self.alone()

    def piece(
        self, entry: Entry, number: int, skip: int = 0, *, volume: int = 0
    ) -> Generator[bytes, None, None]:
        """Yield the bytes of one piece of a file."""
        piece = entry.pieces[number]
        place = self._volume(piece.volume or volume)
        with open_regular(place.path) as file:
            file.seek(place.data_start + piece.offset + skip)
            left = piece.length - skip
            while left:
                data = file.read(min(_CHUNK, left))
                if not data:
                    raise FormatError(f"{place.path} ends too early", context={"file": place.path})
                left -= len(data)
                yield data

    def _volume(self, number: int) -> Volume:
        """Return a volume that is here; 0 stands for any: a whole one before others, and the first that was named."""
        if not number and self._common is not None:
            return self._common
        here = self.volumes if number or self.volumes else self.short
        return here[number or (self._preferred if self._preferred in here else min(here))]

    def read(self, path: str) -> bytes:
        """Return a small file whole. Raises NotFoundError, MirrorError."""
        return b"".join(self.chunks(self.require(path)))


def _cut(of: int, path: str, known: Collection[int]) -> dict[int, str]:
    """Return files with the names that missing volumes have beside the one at `path`: they were not read as volumes."""
    directory, name = os.path.split(path)
    names = volume_names(name.removesuffix(SUFFIX).rpartition(".")[0] + SUFFIX, of)
    if of == 1 or name not in names:
        return {}  # somebody gave them other names
    paths = {number: os.path.join(directory, one) for number, one in enumerate(names, 1)}
    return {number: path for number, path in paths.items() if number not in known and os.path.isfile(path)}


@dataclass(slots=True)
class Found:
    """A bundle that was found: the volumes that were named, those beside them, and (by path) those not to be believed.

    `signature` is "good", "none" or "not-required", `key` the fingerprint or "", once that was looked at (`believe`).
    """

    volumes: list[Volume] = field(default_factory=list)
    beside: list[Volume] = field(default_factory=list)
    refused: dict[str, tuple[Volume, CachefetchError]] = field(default_factory=dict)
    signature: str = ""
    key: str = ""

    @property
    def id(self) -> str:
        """The bundle's name."""
        return self.volumes[0].header.id

    def all(self) -> list[Volume]:
        """Return the volumes, those that were named first."""
        return [*self.volumes, *self.beside]


def open_bundle(location: str) -> Bundle:
    """Open the bundle that one of its volumes, or the directory with its volumes, names.

    Args:
        location: a path, or the same as ``bundle://PATH``. Beside a volume the others are found by what they hold,
            whatever their names.

    Raises:
        NotFoundError: there is nothing.
        FormatError: it is no bundle, or a damaged one.
        UsageError: a directory with volumes of several bundles.
    """
    found, unreadable = find_bundles(location)
    if not found:
        raise next(iter(unreadable.values()))
    if len(found) > 1:
        names = ", ".join(os.path.basename(one.volumes[0].path) for one in found)
        raise UsageError(
            f"{_path(location)} holds volumes of {len(found)} bundles: {names}",
            hint="name a volume of the one that is meant",
        )
    return Bundle(found[0].all())


def find_bundles(location: str) -> tuple[list[Found], dict[str, CachefetchError]]:
    """Return every bundle in a directory, or the one that a file belongs to, and the volumes that cannot be read.

    A file that cannot be read counts as a volume when its name or its first bytes say so: path -> why.

    Raises:
        NotFoundError: there is nothing.
        FormatError: neither a bundle nor what is left of one.
    """
    path = _path(location)
    whole = os.path.isdir(path)
    directory = path if whole else os.path.dirname(path)
    groups: dict[str, Found] = {}
    unreadable: dict[str, CachefetchError] = {}
    try:
        if not whole:
            _add_named(path, groups, unreadable)
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(
            f"{path} does not exist",
            hint="name a volume of a bundle, or the directory that holds its volumes",
            context={"path": path},
        ) from None
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}", context={"path": path}) from error
    for name in names:
        other = os.path.join(directory, name)
        if not name.endswith(SUFFIX) or other == path:
            continue
        volume = _volume_or_why(other)
        if isinstance(volume, Volume):
            if whole:
                groups.setdefault(volume.header.id, Found()).volumes.append(volume)
            elif volume.header.id in groups:
                groups[volume.header.id].beside.append(volume)
        elif whole and os.path.isfile(other):
            unreadable[other] = volume
    if not groups and not unreadable:
        raise FormatError(
            f"{path} holds no bundle",
            hint=f"a bundle is what `cachefetch bundle export` writes, files that end in {SUFFIX}",
            context={"path": path},
        )
    return list(groups.values()), unreadable


def _add_named(path: str, groups: dict[str, Found], unreadable: dict[str, CachefetchError]) -> None:
    """Read a file that was named. Raises FormatError where it is nothing like a volume, OSError."""
    try:
        volume = read_volume(path)
    except (FormatError, TrustError) as error:
        if not path.endswith(SUFFIX) and not is_volume(path):
            raise
        unreadable[path] = error
    else:
        groups[volume.header.id] = Found([volume])


def is_volume(path: str) -> bool:
    """Tell by its first bytes whether a file is a volume of a bundle."""
    try:
        if not os.path.isfile(path):
            return False
        with open_regular(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_volume(path: str) -> Volume:
    """Read the header of a volume. Raises FormatError, OSError; TrustError where a signature is no whole one."""
    with open_regular(path) as file:
        size = read_member_header(_exactly(file, BLOCK, path), HEADER_NAME, what=path)
        if size > MAX_HEADER_SIZE:
            raise FormatError(f"{path}: a header of {size} bytes is refused", context={"file": path})
        text = _exactly(file, size, path)
        _exactly(file, padding(size), path)
        plain = split_cleartext(text, what=path).text if is_signed(text) else text
        header = read_header(plain, what=path)
        listed = read_member_header(_exactly(file, BLOCK, path), LIST_NAME, what=path)
        if listed != header.list_size:
            raise FormatError(f"{path}: its list is not the one of its header", context={"file": path})
        start = file.tell() + listed + padding(listed)
    return Volume(path, header, text, start)


def _volume_or_why(path: str) -> Volume | CachefetchError:
    try:
        return read_volume(path)
    except (FormatError, TrustError) as error:
        return error
    except OSError as error:
        return FormatError(f"{path} cannot be read: {error.strerror}", context={"path": path})


def _first_list(volumes: Sequence[Volume]) -> tuple[Volume, Contents]:
    """Return a volume whose list is right, and the list: one that is cut in its list does not spoil the others."""
    errors: list[FormatError] = []
    for volume in volumes:
        try:
            return volume, _read_list(volume)
        except FormatError as error:
            errors.append(error)
    raise errors[0]


def _read_list(volume: Volume) -> Contents:
    with open_regular(volume.path) as file:
        file.seek(volume.data_start - padding(volume.header.list_size) - volume.header.list_size)
        data = _exactly(file, volume.header.list_size, volume.path)
    return read_list(data, volume.header, what=volume.path)


def _exactly(file: BinaryIO, size: int, path: str) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise FormatError(
            f"{path} ends after {file.tell()} bytes: it is no whole volume of a bundle",
            hint="copy the volume again",
            context={"file": path},
        )
    return data


def _path(location: str) -> str:
    return os.path.abspath(location.removeprefix(SCHEME))
