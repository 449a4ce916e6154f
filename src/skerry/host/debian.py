"""Makes the tree of a Debian template: mmdebstrap for the system, pip for Python's packages, and what users expect.

What runs here is the distribution's and PyPI's software of our own choice, as root, in a mount and process namespace of
its own that goes away with it. What nobody reviewed runs only in sandboxes.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

from skerry.host.certificates import local_certificates
from skerry.host.commands import ISOLATED, follow
from skerry.host.definitions import Definition

VERSION = 3
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
if [ -n "$5" ]; then
    mkdir -p "$1.work" "$1.merged"
    mount -t overlay overlay -o "lowerdir=$5,upperdir=$1,workdir=$1.work,redirect_dir=off,metacopy=off" "$1.merged"
    cd "$1.merged"
else
    cd "$1"
fi
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
"""Arguments: the tree, user:group, home, the script to run inside, and the layers below the tree."""

_INSTALL = """
set -e
mkdir -p /usr/share/man/man1 /usr/share/man/man7
apt-get update -qq
apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 "$@" </dev/null
"""

_SETTLE = """
set -e
update-ca-certificates >/dev/null 2>&1
rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
groupadd --force --gid 27 sudo
useradd --create-home --uid 1000 --shell /bin/bash --groups sudo user
ln -sf /opt/skerry/agent /usr/local/bin/sudo
mkdir -p /opt/skerry /run/skerry/link
printf 'LANG=C.UTF-8\\n' > /etc/default/locale
cat > /etc/profile <<'END'
# In place of Debian's, which starts two programs: tens of milliseconds each in a sandbox. PATH is set already.
for file in /etc/profile.d/*.sh; do
  [ -r "$file" ] && . "$file"
done
unset file
if [ "${PS1-}" ] && [ "${BASH-}" ] && [ -f /etc/bash.bashrc ]; then
  . /etc/bash.bashrc
fi
END
"""

_HOME = """
set -e
cd
mkdir -p .local/bin "$(python3 -c 'import site; print(site.getusersitepackages())')"
printf 'prefix=/home/user/.local\\n' > .npmrc
python3 -c 'import matplotlib.pyplot' 2>/dev/null || true
"""
"""As `user`: places for `pip install` and `npm install -g` to go to without root, and matplotlib's list of fonts."""

_SWEEP = """
set -e
for name in man doc info locale lintian bug; do rm -rf /usr/share/$name/*; done
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/* /root/.cache
rm -rf /root/.npm /tmp/*
rm -f /etc/machine-id /var/lib/dbus/machine-id /etc/hostname
mkdir -p /var/cache/apt/archives/partial /var/lib/apt/lists/partial
"""


async def build(definition: Definition, root: Path, lower: Sequence[Path] = ()) -> AsyncGenerator[str, None]:
    """Fill the new directory `root`; yields log lines.

    Args:
        lower: layers of the image that it is to lie on, the lowest first; it then holds the differences only.

    Raises:
        CommandFailed, OSError
    """
    work = _Work(definition, root, lower)
    for title, step in work.steps(await _archives(definition.debian.suite)):
        yield title
        async with aclosing(step) as lines:
            async for line in lines:
                yield line
    work.sweep()


class _Work:
    """What is done to make one tree."""

    def __init__(self, definition: Definition, root: Path, lower: Sequence[Path]) -> None:
        self._definition, self._root, self._lower = definition, root, lower

    def steps(self, archives: list[str]) -> Iterator[tuple[str, AsyncGenerator[str, None]]]:
        """One after the other: a title and the command that does it."""
        wanted = self._definition
        packages = wanted.debian.packages
        title = f"installing Debian {wanted.debian.suite} with {', '.join(packages)}"
        if not self._lower:
            yield title, follow((*ISOLATED, *_mmdebstrap(wanted, self._root), *archives), _environment())
            _add_certificates(self._root)
            yield "adding the user and the certificates", self._inside(_SETTLE)
        elif packages:
            self._root.mkdir()
            yield title, self._inside(f"set -- {shlex.join(packages)}\n{_INSTALL}")
        else:
            self._root.mkdir()
        if wanted.python.packages:
            pip = "python3 -m pip install --no-cache-dir --root-user-action=ignore --progress-bar=off"
            title = f"installing from PyPI: {', '.join(wanted.python.packages)}"
            yield title, self._inside(f"{pip} {shlex.join(wanted.python.packages)}")
        if wanted.npm.packages:
            npm = "npm install --global --no-fund --no-audit --loglevel=error"
            title = f"installing from npm: {', '.join(wanted.npm.packages)}"
            yield title, self._inside(f"{npm} {shlex.join(wanted.npm.packages)}")
        if wanted.script is not None:
            yield "running the template's script", self._inside(f"set -e\n{wanted.script}")
        yield "preparing the home directory", self._inside(_HOME, user="1000:1000")
        yield "sweeping", self._inside(_SWEEP)

    def sweep(self) -> None:
        """Take away what the work itself left."""
        for name in ("root.work", "root.merged"):
            shutil.rmtree(self._root.parent / name, ignore_errors=True)
        shutil.rmtree(self._root / "dev", ignore_errors=True)  # no device of the host's: each sandbox has its own
        if not self._lower:
            (self._root / "dev").mkdir(mode=0o755)
        (self._root / "etc/resolv.conf").unlink(missing_ok=True)

    def _inside(self, script: str, user: str = "0:0") -> AsyncGenerator[str, None]:
        """Run a shell script in the tree, with /proc, a few devices and the host's resolver."""
        home = "/root" if user == "0:0" else "/home/user"
        lower = ":".join(map(str, reversed(self._lower)))
        arguments = (str(self._root), user, home, script, lower)
        return follow((*ISOLATED, "sh", "-c", _ENTER, "sh", *arguments), _environment())


def _add_certificates(root: Path) -> None:
    """Where Debian looks for local ones, so that they stay when its own are updated."""
    directory = root / "usr/local/share/ca-certificates"
    directory.mkdir(parents=True, exist_ok=True)
    for number, pem in enumerate(local_certificates(), 1):
        (directory / f"host-{number}.crt").write_text(pem)


def _mmdebstrap(definition: Definition, root: Path) -> list[str]:
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
    return [
        "mmdebstrap", "--variant=minbase", "--mode=root", f"--include={','.join(definition.debian.packages)}",
        '--aptopt=Acquire::Languages "none"', '--aptopt=Acquire::Retries "5"', *options,
        definition.debian.suite, str(root),
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


def _environment() -> dict[str, str]:
    """Nothing of the server's but how to reach the world."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": _PATH, "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **passed}
