"""How this machine reaches the network: certificates and credentials. Values and header texts only; no socket."""

from __future__ import annotations

import os
from functools import partial

from ..errors import ConfigError
from ..values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping


@frozen
class Credential:
    """Where the secret for a host comes from: names of environment variables, never the secret itself.

    `token` makes a bearer token; `user` and `password` make basic authentication.
    """

    token: str = ""
    user: str = ""
    password: str = ""


@frozen
class Network:
    """Certificates and credentials of one client.

    Attributes:
        ca_file: PEM file of the authorities that are trusted, in place of all others; "" for the usual ones:
            SSL_CERT_FILE, SSL_CERT_DIR, else the list that `certifi` carries.
        system_trust: trust the certificates of the operating system in place of that list.
        client_cert, client_key: PEM files that this client identifies itself with; "" for none.
        netrc: file with passwords by host, used when no credential fits; "" for none.
        credentials: by ``host`` or ``host:port``; an IPv6 address in brackets.
    """

    ca_file: str = ""
    system_trust: bool = False
    client_cert: str = ""
    client_key: str = ""
    netrc: str = ""
    credentials: Mapping[str, Credential] = {}

    def tls_context(self) -> ssl.SSLContext:
        """Return the TLS settings for clients.

        Raises:
            ConfigError: a file cannot be read or is no certificate.
        """
        import ssl

        try:
            context = self._trusting()
            if self.client_cert:
                context.load_cert_chain(self.client_cert, self.client_key or None)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(name for name in (self.ca_file, self.client_cert, self.client_key) if name)
            raise ConfigError(
                f"cannot use the certificates {files or 'that SSL_CERT_FILE or SSL_CERT_DIR names'}: {error}",
                hint="each must be a PEM file that this user may read",
            ) from error
        context.set_alpn_protocols(["http/1.1"])
        return context

    def problems(self) -> tuple[str, ...]:
        """Say what of these settings cannot be used: a file that is missing or of another kind, a variable not set."""
        named = {name: getattr(self, name) for name in ("ca_file", "client_cert", "client_key", "netrc")}
        found = [
            f"network.{name}: there is no file {path}"
            for name, path in named.items()
            if path and not os.path.isfile(path)
        ]
        checks: list[Callable[[], object]] = (
            [] if found else [self.tls_context, partial(self._from_netrc, "")]
        )
        checks += [partial(_header, credential, host) for host, credential in self.credentials.items()]
        for check in checks:
            try:
                check()
            except ConfigError as error:
                found.append(error.message)
        return tuple(found)

    def _trusting(self) -> ssl.SSLContext:
        import ssl

        if self.ca_file:
            return ssl.create_default_context(cafile=self.ca_file)
        if self.system_trust:
            return ssl.create_default_context()
        if file := os.environ.get("SSL_CERT_FILE"):
            return ssl.create_default_context(cafile=file)
        if directory := os.environ.get("SSL_CERT_DIR"):
            return ssl.create_default_context(capath=directory)
        import certifi

        return ssl.create_default_context(cafile=certifi.where())

    def authorization(self, host: str, port: int, userinfo: str) -> str | None:
        """Return the Authorization header for a host: of the URL's own ``user:password``, else configured, else netrc.

        Raises:
            ConfigError: a named environment variable is not set, or the netrc file is not usable.
        """
        if userinfo:
            from urllib.parse import unquote

            user, _, password = userinfo.partition(":")
            return _basic(unquote(user), unquote(password))
        host = host.strip("[]")
        name = f"[{host}]" if ":" in host else host  # as a URL has it
        found = self.credentials.get(f"{name}:{port}") or self.credentials.get(name)
        return self._from_netrc(host) if found is None else _header(found, name)

    def _from_netrc(self, host: str) -> str | None:
        if not self.netrc:
            return None
        import netrc

        try:
            found = netrc.netrc(self.netrc).authenticators(host)
        except (OSError, netrc.NetrcParseError) as error:
            raise ConfigError(f"cannot use the netrc file {self.netrc}: {error}") from None
        return _basic(found[0], found[2] or "") if found else None


def _header(credential: Credential, host: str) -> str:
    if credential.token:
        return f"Bearer {_variable(credential.token, host)}"
    return _basic(_variable(credential.user, host), _variable(credential.password, host))


def _variable(name: str, host: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value or any(ord(letter) < 32 for letter in value):
        raise ConfigError(
            f"the credential for {host} is in the environment variable {name or '(no name given)'}, "
            "which is not set or not usable",
            hint=f"export {name or 'VARIABLE'}=... before the command",
        )
    return value


def _basic(user: str, password: str) -> str:
    from base64 import b64encode

    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def proxied(url_scheme: str, host: str) -> bool:
    """Return True when the environment names a proxy for the host: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY."""
    import sys

    names = {name.lower() for name, value in os.environ.items() if value}
    if not names & {f"{url_scheme}_proxy", "all_proxy"} and sys.platform == "linux":
        return False
    return bool(proxy_of(url_scheme, host))


def proxy_of(url_scheme: str, host: str) -> str:
    """Return the proxy that the environment names for the host, with its secrets, "" for none."""
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    found = proxies.get(url_scheme) or proxies.get("all") or ""
    return found if found and not proxy_bypass(host) else ""
