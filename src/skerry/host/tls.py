"""A private certificate authority for one server, and its certificate: made once, kept in the data directory."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_CA_DAYS, _DAYS = 3650, 397
"""397: clients distrust certificates that are valid for longer."""
_RENEW_DAYS = 30


@dataclass(frozen=True, slots=True)
class Tls:
    """What a server shows and what its clients must trust."""

    certificate: Path
    """With the chain."""
    key: Path
    authority: Path | None
    """None: one that clients know anyway."""


def write_private(path: Path, content: bytes) -> None:
    """A file that only its owner may read; whole or not there."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def private_tls(directory: Path, domain: str) -> Tls:
    """The certificate for `domain` and every name directly below it, by an authority of this server's own.

    Both are made when they are missing, of another domain, or about to expire; the authority stays as long as it can,
    so that clients go on trusting it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority, certificate = directory / "ca.pem", directory / "server.pem"
    authority_key, key = directory / "ca-key.pem", directory / "server-key.pem"
    names = [domain, f"*.{domain}"]
    if not _usable(authority, authority_key, None):
        _make(authority, authority_key, "Skerry private CA", None, None)
        certificate.unlink(missing_ok=True)
    if not _usable(certificate, key, names):
        _make(certificate, key, domain, names, (authority, authority_key))
    return Tls(certificate, key, authority)


def _usable(certificate: Path, key: Path, names: list[str] | None) -> bool:
    with suppress(OSError, ValueError):
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        serialization.load_pem_private_key(key.read_bytes(), None)
        fresh = found.not_valid_after_utc > datetime.now(UTC) + timedelta(days=_RENEW_DAYS)
        if names is None:
            return fresh
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return fresh and alternatives.get_values_for_type(x509.DNSName) == names
    return False


def _make(path: Path, key_path: Path, name: str, names: list[str] | None, issuer: tuple[Path, Path] | None) -> None:
    """Make a key and its certificate; without an issuer it signs itself and may sign others."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_CA_DAYS if issuer is None else _DAYS))
        .add_extension(
            x509.BasicConstraints(ca=issuer is None, path_length=0 if issuer is None else None), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is None:
        signed = (
            builder.issuer_name(subject).add_extension(_usage(signs=True), critical=True).sign(key, hashes.SHA256())
        )
        chain = b""
    else:
        chain = issuer[0].read_bytes()
        by = x509.load_pem_x509_certificate(chain)
        by_key = serialization.load_pem_private_key(issuer[1].read_bytes(), None)
        assert isinstance(by_key, ec.EllipticCurvePrivateKey)
        signed = (
            builder.issuer_name(by.subject)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(item) for item in names or []]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by_key.public_key()), critical=False)
            .add_extension(_usage(signs=False), critical=True)
            .sign(by_key, hashes.SHA256())
        )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    write_private(key_path, key.private_bytes(pem, form, serialization.NoEncryption()))
    write_private(path, signed.public_bytes(pem) + chain)
    path.chmod(0o644)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
