"""The certificate authorities that this machine trusts and Debian does not: a company's, a proxy's."""

from __future__ import annotations

import os
import re
from pathlib import Path

_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_DISTRIBUTION = Path("/usr/share/ca-certificates")
_LOCAL = Path("/usr/local/share/ca-certificates")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s+[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def local_certificates() -> list[str]:
    """PEM texts, in a stable order: of the directory for local certificates, and of the bundle in use (SSL_CERT_FILE,
    or the system's) what the distribution's package does not have."""
    texts = [_read(path) for path in sorted(_LOCAL.rglob("*.crt"))]
    known = {pem for path in _DISTRIBUTION.rglob("*.crt") for pem in _certificates(_read(path))}
    if known:  # else everything would look local
        bundle = os.environ.get("SSL_CERT_FILE") or next((path for path in _BUNDLES if os.path.exists(path)), "")
        texts.append(_read(Path(bundle)) if bundle else "")
    return sorted({pem for text in texts for pem in _certificates(text)} - known)


def _certificates(text: str) -> list[str]:
    return ["\n".join(line.strip() for line in pem.splitlines()) + "\n" for pem in _PEM.findall(text)]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
