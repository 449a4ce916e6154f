from __future__ import annotations

from pathlib import Path

import pytest

from skerry.host import certificates


def pem(text: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"


def test_what_this_machine_trusts_and_the_distribution_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution, local = tmp_path / "distribution", tmp_path / "local"
    for directory in (distribution, local):
        directory.mkdir()
    (distribution / "known.crt").write_text(pem("AAAA"))
    (local / "company.crt").write_text("# a comment\n" + pem("BBBB").replace("\n", "\r\n"))
    (tmp_path / "bundle").write_text(pem("AAAA") + pem("CCCC") + pem("BBBB"))
    monkeypatch.setattr(certificates, "_DISTRIBUTION", distribution)
    monkeypatch.setattr(certificates, "_LOCAL", local)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "bundle"))
    assert certificates.local_certificates() == [pem("BBBB"), pem("CCCC")]

    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nonesuch"))
    assert certificates.local_certificates() == [pem("BBBB")]


def test_without_the_distributions_list_only_the_local_directory_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle").write_text(pem("AAAA"))
    monkeypatch.setattr(certificates, "_DISTRIBUTION", tmp_path / "none")
    monkeypatch.setattr(certificates, "_LOCAL", tmp_path / "none")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "bundle"))
    assert certificates.local_certificates() == []
