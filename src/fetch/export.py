"""A fetch plan for other tools: a bastion may have only curl, aria2c or sha256sum. Pure: a plan in, text out.

Files are called ``NAME-VERSION-HASH.spack``, as `fetch --to` calls them; `fetch --adopt DIR` takes them from there.
User, password and query of a mirror's URL are left out: such a file is meant to be carried around.
"""

from __future__ import annotations

import json
import re

from ..errors import UsageError
from ..resolver.index.readers.manifest import spec_stem
from .layouts import payload_url, plain_url
from .transports import is_network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .model import VerifiedPackage
    from .plan import FetchPlan, Step

FORMATS = ("json", "aria2", "curl", "sha256sum", "metalink")
_USERINFO = re.compile(r"(://)[^/?#]*@")


def file_name(package: VerifiedPackage) -> str:
    """Return the name of the package's file outside the store."""
    wanted = package.wanted
    return f"{spec_stem(wanted.name, wanted.version, wanted.hash)}.spack"


def document(plan: FetchPlan) -> dict[str, Any]:
    """Return the ``cachefetch/plan/1`` document; sizes in bytes."""
    return {
        "schema": "cachefetch/plan/1",
        "status": "ok",
        "get_bytes": plan.get_bytes,
        "reuse_bytes": plan.reuse_bytes,
        "items": [_item(step) for step in plan.steps],
    }


def render(plan: FetchPlan, form: str) -> str:
    """Return the plan in one of FORMATS: all of it as JSON, what is to get for the tools.

    Raises:
        UsageError: no such format.
    """
    steps = [step for step in plan.steps if step.stored is None]
    if form == "json":
        return json.dumps(document(plan), indent=1) + "\n"
    if form == "aria2":
        return "".join(map(_aria2, steps))
    if form == "curl":
        return "".join(
            f"url = {_quoted(urls_of(step)[0])}\noutput = {_quoted(file_name(step.package))}\n"
            for step in steps
        )
    if form == "sha256sum":
        return "".join(f"{step.package.tarball.sha256}  {file_name(step.package)}\n" for step in steps)
    if form == "metalink":
        return _metalink(steps)
    raise UsageError(f"there is no format {form!r}", hint=f"one of {', '.join(FORMATS)}")


def urls_of(step: Step) -> list[str]:
    """Return the URLs of the payload, the mirror that proved the package first, without credentials."""
    package = step.package
    sources = sorted(package.wanted.sources, key=lambda source: source is not package.source)
    found = [plain_url(payload_url(source, package)) for source in sources]
    return [_without_secrets(url) if is_network(url) else _file_url(url) for url in found]


def _without_secrets(url: str) -> str:
    return _USERINFO.sub(r"\1", url, count=1).partition("?")[0]


def _item(step: Step) -> dict[str, Any]:
    package = step.package
    wanted, blob = package.wanted, package.tarball
    return {
        "name": wanted.name,
        "version": wanted.version,
        "hash": wanted.hash,
        "sha256": blob.sha256,
        "size": blob.size,
        "action": "get" if step.stored is None else "reuse",
        "path": step.stored.path if step.stored else None,
        "file": file_name(package),
        "urls": urls_of(step),
        "verified": {"binding": True, "signature": package.signature, "key": package.key},
    }


def _file_url(path: str) -> str:
    from urllib.parse import quote

    return path if path[:7].lower() == "file://" else f"file://{quote(path)}"


def _aria2(step: Step) -> str:
    urls, digest = "\t".join(urls_of(step)), step.package.tarball.sha256
    return f"{urls}\n  out={file_name(step.package)}\n  checksum=sha-256={digest}\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _metalink(steps: Sequence[Step]) -> str:
    """Return a metalink 4 document (RFC 5854)."""
    from xml.sax.saxutils import escape, quoteattr

    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<metalink xmlns="urn:ietf:params:xml:ns:metalink">']
    for step in steps:
        blob = step.package.tarball
        lines.append(f"  <file name={quoteattr(file_name(step.package))}>")
        lines.append(f'    <size>{blob.size}</size>\n    <hash type="sha-256">{blob.sha256}</hash>')
        lines += [f"    <url>{escape(url)}</url>" for url in urls_of(step)]
        lines.append("  </file>")
    return "\n".join([*lines, "</metalink>", ""])
