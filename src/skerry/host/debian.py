"""Makes the tree of a Debian template: mmdebstrap for the system, pip for Python's packages, and what users expect.

What runs here is the distribution's and PyPI's software of our own choice, as root, in a mount and process namespace of
its own that goes away with it. What nobody reviewed runs only in sandboxes.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from skerry.host.certificates import local_certificates
from skerry.host.commands import ISOLATED, follow
from skerry.host.definitions import Definition

VERSION = 1
"""Of this recipe: raised whenever the same definition gives another tree."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PASSED_ON = (
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "PIP_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT",
)  # fmt: skip
"""How this machine reaches the world: for the time of the build only."""
_LEFT_OUT = ("man", "doc", "info", "locale", "lintian", "bug")  # of /usr/share

_ENTER = """
set -e
cd "$1"
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero random urandom; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir -m 1777 dev/shm
touch etc/resolv.conf
mount --bind "$(readlink -f /etc/resolv.conf)" etc/resolv.conf
exec chroot --userspec="$2" . env HOME="$3" sh -c "$4"
"""
"""Arguments: the tree, user:group, home, and the script to run inside."""

_SETTLE = """
set -e
update-ca-certificates >/dev/null 2>&1
rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
groupadd --force --gid 27 sudo
useradd --create-home --uid 1000 --shell /bin/bash --groups sudo user
ln -sf /opt/skerry/agent /usr/local/bin/sudo
mkdir -p /opt/skerry /run/skerry/link
printf 'LANG=C.UTF-8\\n' > /etc/default/locale
"""

_HOME = """
set -e
cd
mkdir -p .local/bin "$(python3 -c 'import site; print(site.getusersitepackages())')"
printf 'prefix=/home/user/.local\\n' > .npmrc
printf '\\nexport PATH="$HOME/.local/bin:$PATH"\\n' >> .profile
sed -i '1i export PATH="$HOME/.local/bin:$PATH"' .bashrc
python3 -c 'import matplotlib.pyplot' 2>/dev/null || true
"""
"""As `user`: places for `pip install` and `npm install -g` to go to without root, and matplotlib's list of fonts."""

_SWEEP = """
set -e
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/* /root/.cache /tmp/*
rm -f /etc/machine-id /var/lib/dbus/machine-id /etc/hostname
mkdir -p /var/cache/apt/archives/partial /var/lib/apt/lists/partial
"""


async def build(definition: Definition, root: Path) -> AsyncIterator[str]:
    """Fill the new directory `root`; yields log lines.

    Raises:
        CommandFailed, OSError
    """
    yield f"installing Debian {definition.debian.suite} and {len(definition.debian.packages)} packages"
    async for line in follow((*ISOLATED, *await _mmdebstrap(definition, root)), _environment()):
        yield line
    for number, pem in enumerate(local_certificates(), 1):
        path = root / "usr/local/share/ca-certificates" / f"host-{number}.crt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pem)
    async for line in _inside(root, _SETTLE):
        yield line
    if definition.python.packages:
        yield f"installing from PyPI: {', '.join(definition.python.packages)}"
        packages = shlex.join(definition.python.packages)
        command = f"python3 -m pip install --no-cache-dir --root-user-action=ignore --progress-bar=off {packages}"
        async for line in _inside(root, command):
            yield line
    async for line in _inside(root, _HOME, user="1000:1000"):
        yield line
    async for line in _inside(root, _SWEEP):
        yield line
    shutil.rmtree(root / "dev")  # no device of the host's, not even null: each sandbox has its own
    (root / "dev").mkdir(mode=0o755)
    (root / "etc/resolv.conf").unlink()


async def _mmdebstrap(definition: Definition, root: Path) -> list[str]:
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
    return [
        "mmdebstrap", "--variant=minbase", "--mode=root", f"--include={','.join(definition.debian.packages)}",
        '--aptopt=Acquire::Languages "none"', '--aptopt=Acquire::Retries "5"', *options,
        definition.debian.suite, str(root), *await _archives(definition.debian.suite),
    ]  # fmt: skip


async def _archives(suite: str) -> list[str]:
    """Lines for sources.list that name the archives this machine uses itself, where it is a Debian; else none, and
    mmdebstrap takes its default."""
    main = security = None
    listing = [
        "apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    ]  # fmt: skip
    if not _is_debian() or shutil.which("apt-get") is None:
        return []
    async for line in follow(listing, _environment()):
        address, _, rest = line.partition(" ")
        release, _, component = rest.partition(" ")
        if component != "main" or "debian" not in address:
            continue
        if release.endswith("-security"):
            security = security or address
        elif "-" not in release:
            main = main or address
    if main is None or security is None:
        return []
    return [f"deb {main} {suite} main", f"deb {main} {suite}-updates main", f"deb {security} {suite}-security main"]


def _is_debian() -> bool:
    try:
        return "\nID=debian\n" in "\n" + Path("/etc/os-release").read_text()
    except OSError:
        return False


async def _inside(root: Path, script: str, user: str = "0:0") -> AsyncIterator[str]:
    """Run a shell script in the tree, with /proc, a few devices and the host's resolver."""
    home = "/root" if user == "0:0" else "/home/user"
    chroot = ("sh", "-c", _ENTER, "sh", str(root), user, home, script)
    async for line in follow((*ISOLATED, *chroot), _environment()):
        yield line


def _environment() -> dict[str, str]:
    """Nothing of the server's but how to reach the world."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": _PATH, "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **passed}
