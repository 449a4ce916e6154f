"""The server's settings: one typed object, from the environment (`SKERRY_…`) and the command line."""

from __future__ import annotations

import hashlib
import os
import socket
from ipaddress import IPv4Network, ip_address
from pathlib import Path

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_ALIASES = {"e2bdev/base": "template:base", "e2bdev/code-interpreter": "template:code-interpreter-v1"}


class Settings(BaseSettings):
    """All settings of `skerry up`. Each is also an environment variable: `SKERRY_PORT` and so on."""

    model_config = SettingsConfigDict(env_prefix="SKERRY_", extra="ignore", use_attribute_docstrings=True, frozen=True)

    host: str = "127.0.0.1"
    """Address to listen on. Every address but loopback needs `allow_remote`."""
    port: int = Field(default=7070, ge=0, le=65535)
    """Port to listen on; 0: any free one."""
    allow_remote: bool = False
    """Listen on an address that other machines reach. Put TLS in front: keys travel with every request."""
    domain: str | None = Field(default=None, pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)*$", max_length=180)
    """Domain whose names lead here: `api.<domain>`, and `<port>-<sandbox>.<domain>` for programs in sandboxes."""
    server_names: list[str] = []
    """Names by which clients reach this server in their URL, beside its addresses, `localhost`, the machine's own name
    and `domain`. Under any other name no header may say which sandbox is meant. JSON."""
    tls: str = Field(default="off", pattern="^(off|private-ca|files)$")
    """off; private-ca: certificates by an authority of this server's own; files: those of `tls_cert` and `tls_key`."""
    tls_cert: Path | None = None
    """Certificate (PEM, with its chain) for `domain` and `*.domain`."""
    tls_key: Path | None = None
    """Its key (PEM)."""
    tls_port: int | None = Field(default=None, ge=0, le=65535)
    """Port for TLS. Default: 8443, or any free one when `port` is 0."""
    data_dir: Path = Path("/var/lib/skerry/data")
    """Database, disks, the first API key. One server at a time."""
    images_dir: Path = Path("/var/lib/skerry/images")
    """Images and templates; may be shared by servers of one machine."""
    run_dir: Path = Path("/run/skerry")
    """Sockets and records of live sandboxes; must be short, and empty after a reboot."""
    subnet: str = "10.211.0.0/16"
    """Addresses of sandboxes, not used elsewhere on this machine. Another server on it needs another one."""
    pool_min: int = Field(default=2, ge=0, le=1000)
    """Sandboxes of a template in use that are kept ready however quiet it is; 0: no pool."""
    pool_max: int = Field(default=16, ge=0, le=1000)
    """Sandboxes of a template that are kept ready however busy it is."""
    paused_in_memory_s: float = Field(default=60.0, ge=0.1)
    """Seconds that a paused sandbox keeps its memory; then it is written to the disk."""
    paused_reserve_mib: int = Field(default=1024, ge=0)
    """MiB of memory that shall be available; with less, paused sandboxes are written to the disk at once."""
    pool_template: str = "base"
    """Template whose pool is filled at the start; others follow with their first use."""
    image_aliases: dict[str, str] = _ALIASES
    """Image names in recipes and what is taken instead: another image, `template:NAME`, or, for a first part such as a
    registry's name, another first part. JSON; what is given comes to the default's, an empty value takes one away."""
    image_stand_ins: dict[str, str] = {"ubuntu": "base", "debian": "base", "python": "base", "node": "base"}
    """Image names whose registry cannot be reached, and the template that stands in for them; the build's log says so.
    JSON; `{}` to have none."""
    insecure_registries: list[str] = []
    """Registries (`host:port`) that are asked without TLS. JSON."""
    private_registries: list[str] = []
    """Registries (`host` or `host:port`) in networks that are not public which images may come from. Those that are
    asked without TLS, and those that an alias names, need not be repeated. JSON."""
    warm_restore: bool = True
    """Start sandboxes from a memory snapshot of the template's first start, with its interpreter warm."""
    body_limit_mib: int = Field(default=16, ge=1, le=1024)
    """Largest JSON body. File contents are not limited by it."""
    volume_size_mib: int = Field(default=1024, ge=16, le=64 * 1024 * 1024)
    """Size of a volume whose maker does not say."""
    volume_size_max_mib: int = Field(default=1024 * 1024, ge=16, le=64 * 1024 * 1024)
    """Size that a volume may have at most."""
    storage_quota_mib: int | None = Field(default=None, ge=0)
    """What a tenant may keep: volumes count with their size, snapshots with what they take. Default: no limit."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """debug, info, warning or error."""

    @field_validator("subnet")
    @classmethod
    def _usable_subnet(cls, value: str) -> str:
        network = IPv4Network(value)
        if not network.is_private or not 12 <= network.prefixlen <= 26:
            raise ValueError(f"{value} must be a private IPv4 network of size /12 to /26")
        return value

    @field_validator("image_aliases")
    @classmethod
    def _with_the_usual_aliases(cls, value: dict[str, str]) -> dict[str, str]:
        return {name: target for name, target in {**_ALIASES, **value}.items() if target}

    @field_validator("data_dir", "images_dir", "run_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.absolute()

    @model_validator(mode="after")
    def _tls_is_complete(self) -> Settings:
        if self.tls == "private-ca" and self.domain is None:
            raise ValueError("--tls private-ca needs --domain: certificates are for names")
        if self.tls == "files" and (self.tls_cert is None or self.tls_key is None):
            raise ValueError("--tls files needs --tls-cert and --tls-key")
        return self

    @property
    def own_names(self) -> frozenset[str]:
        """`server_names` and the machine's own name, in lower case."""
        return frozenset(name.lower() for name in (*self.server_names, socket.gethostname()))

    @property
    def instance(self) -> str:
        """Six characters that tell this data directory's server from others on the machine."""
        return hashlib.sha256(os.fsencode(self.data_dir.resolve())).hexdigest()[:6]

    @property
    def is_remote(self) -> bool:
        """Whether other machines can reach `host`."""
        if self.host == "localhost":
            return False
        try:
            return not ip_address(self.host).is_loopback
        except ValueError:
            return True
