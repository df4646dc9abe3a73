"""Plain GETs of an OCI registry, with its token flow; as far as reading an index image needs.

URLs are ``oci://HOST/v2/NAME/...`` (https) and ``oci+http://HOST/v2/NAME/...``. Credentials are those in the URL, else
those configured for the registry's host (`Network`); user and password go to the registry and to the token service that
it names, a bearer token to the registry alone. A token service with credentials of its own gets those.
"""

from __future__ import annotations

import base64
import json
import re
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlencode, urlsplit

from ...errors import AccessError, FormatError, MirrorError
from . import host_of, redact
from .http import HttpTransport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from ..limits import Limits
    from ..network import Network

#: Spack 1.1 asks for these two and supports no image indexes (docs/formats.md, "OCI").
_ACCEPT = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
_PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"([^"]*)"|([^",\s]+))')
_USER = re.compile(r"^(oci(?:\+http)?)://(?:([^/@]*)@)?(.*)$", re.S)
_TOKEN_LIMIT = 1 << 20
_HINT = (
    'name the variables that hold them under [network.credentials."HOST"] in the configuration (docs/cli.md), '
    "or give them as access_pair in Spack's mirrors.yaml"
)


class OciTransport(HttpTransport):
    """A registry. One token is kept for each repository."""

    def __init__(self, limits: Limits, network: Network) -> None:
        super().__init__(limits, network)
        self._tokens: dict[str, str] = {}

    @asynccontextmanager
    async def _stream(
        self, url: str, headers: dict[str, str], patience_s: float
    ) -> AsyncIterator[httpx.Response]:
        target, userinfo = http_url(url)
        scope = target.partition("/manifests/")[0].partition("/blobs/")[0]
        headers = {**headers, "Accept": _ACCEPT} if "/manifests/" in target else dict(headers)
        token = self._tokens.get(scope)
        async with super()._stream(target, {**headers, **_authorization(token)}, patience_s) as response:
            if response.status_code != 401:
                yield response
                return
            challenge = response.headers.get_list("www-authenticate")
        self._tokens[scope] = await self._token(challenge, userinfo, target)
        headers |= _authorization(self._tokens[scope])
        async with super()._stream(target, headers, patience_s) as response:
            yield response

    async def _token(self, challenges: list[str], userinfo: str, url: str) -> str:
        """Return the Authorization header that answers the challenge of a 401.

        Raises:
            AccessError: the registry asks for nothing that we can give.
        """
        bearer = next((text for text in challenges if text.lower().startswith("bearer ")), "")
        values = {key.lower(): quoted or plain for key, quoted, plain in _PARAMETER.findall(bearer)}
        if not values.get("realm"):
            if userinfo and any(text.lower().startswith("basic") for text in challenges):
                return _basic(userinfo)
            raise self._refused(url)
        realm = values["realm"]
        if not realm.startswith("https://") and not _same_plain_host(realm, url):
            raise MirrorError(
                f"{redact(url)}: the registry sends us to {redact(realm)} for a token, which is not https",
                hint="tell the owner of the registry",
                context={"url": redact(url), "reason": "token-service"},
            )
        query = urlencode(
            [(key, values[key]) for key in ("service", "scope") if values.get(key)]
            + [("client_id", "cachefetch")]
        )
        ask = f"{realm}{'&' if '?' in realm else '?'}{query}"
        headers = self._for_service(realm, userinfo, url)
        async with super()._stream(ask, headers, self._limits.first_byte_s) as response:
            if response.status_code != 200:
                raise AccessError(
                    f"{redact(url)}: the token service answers HTTP {response.status_code}",
                    hint=_HINT,
                    context={"url": redact(url), "status": response.status_code},
                )
            body = await self._read(response, ask, _TOKEN_LIMIT)
        return f"Bearer {_token_in(body, url)}"

    def _for_service(self, realm: str, userinfo: str, url: str) -> dict[str, str]:
        """Return the Authorization for a token service; {} leaves it to what is configured for its own host."""
        if userinfo:
            return {"Authorization": _basic(userinfo)}
        if self._configured(realm):
            return {}
        found = self._configured(url) or ""
        return _authorization(found if found.startswith("Basic ") else None)

    def _configured(self, url: str) -> str | None:
        """Return the Authorization that the configuration has for the host of `url`."""
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return self._network.authorization(parts.hostname or "", port, "")

    def _refused(self, url: str) -> AccessError:
        """Return the error for a registry that asks for user and password, or refuses those that it got."""
        had = self._configured(url) is not None
        what = "refuses the configured user and password" if had else "wants a user and password"
        return AccessError(
            f"{redact(url)}: the registry {what} (HTTP 401)",
            hint=_HINT,
            context={"url": redact(url), "status": 401},
        )


def http_url(url: str) -> tuple[str, str]:
    """Return the http or https URL of an ``oci`` one, and its ``user:password``, decoded."""
    match = _USER.match(url)
    if match is None:
        raise MirrorError(
            f"{redact(url)} is no registry URL", hint="oci://HOST/NAME", context={"url": redact(url)}
        )
    scheme = "http" if match[1] == "oci+http" else "https"
    return f"{scheme}://{match[3]}", unquote(match[2] or "")


def _same_plain_host(realm: str, url: str) -> bool:
    """Return True when both are http on one host: then a token service without TLS takes nothing away."""
    plain = realm.startswith("http://") and url.startswith("http://")
    return plain and host_of(realm).partition(":")[0] == host_of(url).partition(":")[0]


def _authorization(token: str | None) -> dict[str, str]:
    return {"Authorization": token} if token else {}


def _basic(userinfo: str) -> str:
    return "Basic " + base64.b64encode(userinfo.encode()).decode("ascii")


def _token_in(body: bytes, url: str) -> str:
    try:
        document = json.loads(body)
        token = document.get("token") or document.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        token = None
    if not isinstance(token, str) or not token:
        raise FormatError(f"{redact(url)}: the token service gives no token", context={"url": redact(url)})
    return token
