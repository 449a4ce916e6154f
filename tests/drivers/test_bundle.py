"""The OCI configuration: what a sandbox may do and what it can see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from skerry.drivers.bundle import oci_config
from skerry.models import Limits
from skerry.ports import Boot

LIMITS = Limits(cpu=1.5, memory_mib=512, disk_mib=1024, pids=128)


@pytest.fixture
def boot() -> Boot:
    return Boot(
        sandbox_id="abc",
        rootfs=Path("/mounts/abc"),
        network_namespace="/run/netns/abc",
        cgroup="abc",
        link_directory=Path("/run/x/abc/link"),
        volumes_directory=Path("/volumes/abc"),
        runtime_directory=Path("/runtime"),
        limits=LIMITS,
        hostname="box",
    )


def test_nothing_of_the_hosts_environment_is_inside(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cr3t")
    config = oci_config(boot)
    assert [line.split("=")[0] for line in config["process"]["env"]] == ["PATH"]
    assert "s3cr3t" not in json.dumps(config)


def test_no_device_and_no_host_path_but_the_three_binds(boot: Boot) -> None:
    config = oci_config(boot)
    assert "devices" not in config["linux"]
    binds = {mount["destination"]: mount for mount in config["mounts"] if mount["type"] == "bind"}
    assert {destination: mount["source"] for destination, mount in binds.items()} == {
        "/opt/skerry": "/runtime",
        "/run/skerry/link": "/run/x/abc/link",
        "/run/skerry/volumes": "/volumes/abc",
    }
    assert all({"nosuid", "nodev"} <= set(mount["options"]) for mount in binds.values())
    assert [name for name, mount in binds.items() if "ro" not in mount["options"]] == ["/run/skerry/volumes"]
    assert "rslave" in binds["/run/skerry/volumes"]["options"]


def test_the_network_namespace_is_the_prepared_one(boot: Boot) -> None:
    namespaces = {entry["type"]: entry.get("path") for entry in oci_config(boot)["linux"]["namespaces"]}
    assert namespaces["network"] == "/run/netns/abc"
    assert {"pid", "ipc", "uts", "mount"} <= namespaces.keys()


def test_capabilities_are_few_and_none_is_inherited(boot: Boot) -> None:
    capabilities = oci_config(boot)["process"]["capabilities"]
    assert capabilities["inheritable"] == capabilities["ambient"] == []
    for dangerous in ("SYS_MODULE", "SYS_RAWIO", "SYS_PTRACE", "NET_ADMIN", "SYS_TIME", "SYS_BOOT", "DAC_READ_SEARCH"):
        assert f"CAP_{dangerous}" not in capabilities["bounding"]
    assert oci_config(boot)["process"]["noNewPrivileges"] is True


def test_shared_memory_is_limited_by_the_memory(boot: Boot) -> None:
    (shared,) = [mount for mount in oci_config(boot)["mounts"] if mount["destination"] == "/dev/shm"]
    assert "size=256m" in shared["options"]
