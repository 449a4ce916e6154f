"""The private authority and what it signs, checked by OpenSSL's own reading through `ssl`."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest

from skerry.host.tls import Tls, private_tls


def shake_hands(tls: Tls, name: str, authority: Path) -> None:
    """A client that trusts `authority` connects to `name`. Raises ssl.SSLError."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tls.certificate, tls.key)
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ssl.create_default_context(cafile=str(authority)).wrap_socket(ours, server_hostname=name):
            pass
    finally:
        ours.close()
        thread.join(10)


def test_names_of_the_domain_are_trusted_and_no_others(tmp_path: Path) -> None:
    tls = private_tls(tmp_path / "tls", "sbx.localhost")
    assert tls.authority is not None
    for name in ("sbx.localhost", "api.sbx.localhost", "49983-sb0.sbx.localhost"):
        shake_hands(tls, name, tls.authority)
    for name in ("localhost", "a.b.sbx.localhost", "example.com"):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(tls, name, tls.authority)
    other = private_tls(tmp_path / "other", "sbx.localhost")
    assert other.authority is not None
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tls, "sbx.localhost", other.authority)


def test_it_is_made_once_and_anew_for_another_domain(tmp_path: Path) -> None:
    first = private_tls(tmp_path, "a.localhost")
    assert first.authority is not None
    authority, certificate = first.authority.read_bytes(), first.certificate.read_bytes()
    private_tls(tmp_path, "a.localhost")
    assert (first.authority.read_bytes(), first.certificate.read_bytes()) == (authority, certificate)
    second = private_tls(tmp_path, "b.localhost")
    assert first.authority.read_bytes() == authority, "clients go on trusting it"
    shake_hands(second, "x.b.localhost", first.authority)


def test_what_is_damaged_is_made_again(tmp_path: Path) -> None:
    tls = private_tls(tmp_path, "a.localhost")
    assert tls.authority is not None
    tls.key.write_text("damaged")
    shake_hands(private_tls(tmp_path, "a.localhost"), "a.localhost", tls.authority)


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    private_tls(tmp_path / "tls", "a.localhost")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "tls").iterdir()}
    assert modes == {"ca.pem": 0o644, "ca-key.pem": 0o600, "server.pem": 0o644, "server-key.pem": 0o600}
