"""The audit of the keys that a mirror publishes, and of their list."""

from __future__ import annotations

import json
from contextlib import suppress

from anyio import to_thread

from ...errors import CachefetchError, FormatError, NotFoundError
from ...resolver.index.readers.manifest import (
    KEY_INDEX_MANIFEST,
    KEY_MEDIA_TYPE,
    is_fingerprint,
    key_manifest_path,
    parse_manifest,
)
from .accepted import refused_key, refused_key_list, remarks_on, remarks_on_blob
from .destination import KEY_SUFFIX, KEYS, list_other_manifests
from .inspection import Inspection
from .keys import check_key


class KeyAudit(Inspection):
    """The part of an audit that is about keys."""

    async def _keys(self, has_index: bool) -> None:
        there = await self._keys_there()
        try:
            data = await self._document(KEY_INDEX_MANIFEST)
        except NotFoundError:
            # Spack lists keys when it writes an index: before that the list is not missing.
            if there and has_index:
                self._no_key_list(KEY_INDEX_MANIFEST, there)
            return
        except FormatError as error:
            self._problem("", "key", error.code, error.message, KEY_INDEX_MANIFEST)
            return
        names: list[str] = []
        try:
            manifest = parse_manifest(data, what=KEY_INDEX_MANIFEST)
            ref = manifest.key_index()
            self.named[ref.sha256] = ref.size
            blob = await self._blob(ref, 1 << 20)
            names = [str(name) for name in json.loads(blob)["keys"]]
            if refused := refused_key_list(manifest):
                raise FormatError(f"{KEY_INDEX_MANIFEST} {refused}")
            self.odd.remark(KEY_INDEX_MANIFEST, [*remarks_on(manifest), *remarks_on_blob(ref, blob[:2])])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self._problem("", "key", "bad-format", f"the key list is damaged: {error}", KEY_INDEX_MANIFEST)
        except CachefetchError as error:
            self._problem("", "key", error.code, error.message, KEY_INDEX_MANIFEST)
        for name in names:
            await self._key(name)
        for name in sorted(there - {name.upper() for name in names}):
            self.odd.remark(
                key_manifest_path(name), ["the key is not in the list of keys: Spack does not see it"]
            )
            await self._key(name)

    def _no_key_list(self, path: str, there: set[str]) -> None:
        message = f"{path} does not exist, so that Spack does not find the keys that are there ({len(there)})"
        self._problem("", "key", NotFoundError.code, message, path)

    async def _keys_there(self) -> set[str]:
        """Return the fingerprints of the keys that have a manifest; at a URL only of those that are trusted."""
        if self.local is not None:
            names = await to_thread.run_sync(list_other_manifests, self.local)
            keys = {name[len(KEYS) + 1 : -len(KEY_SUFFIX)] for name in names if name.endswith(KEY_SUFFIX)}
            return {key for key in keys if is_fingerprint(key)}
        found = set()
        for fingerprint in self.source.keyring.fingerprints:
            with suppress(CachefetchError):
                await self._document(key_manifest_path(fingerprint))
                found.add(fingerprint)
        return found

    async def _key(self, fingerprint: str) -> None:
        path = KEY_INDEX_MANIFEST
        try:
            path = key_manifest_path(fingerprint)
            manifest = parse_manifest(await self._document(path), what=path)
            ref = manifest.key()
            self.named[ref.sha256] = ref.size
            blob = await self._blob(ref, 4 << 20)
            check_key(blob, fingerprint, path)
            if refused := refused_key(manifest, KEY_MEDIA_TYPE):
                raise FormatError(f"{path} {refused}")
            self.odd.remark(path, [*remarks_on(manifest), *remarks_on_blob(ref, blob[:2])])
        except CachefetchError as error:
            self._problem("", "key", error.code, error.message, path)
