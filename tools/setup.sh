#!/usr/bin/env bash
# Everything that Skerry needs on this machine: system packages, the Python environment, the agent, the base template.
# Idempotent: what is there already costs a second. Used by `make setup`; run it with no arguments.
set -euo pipefail
cd "$(dirname "$0")/.."

RUNSC_OLDEST=20240729
PACKAGES=(ca-certificates nftables mmdebstrap skopeo e2fsprogs iproute2 procps util-linux kmod make)
PYTHON_OLDEST="3, 11"

started=$SECONDS
say() { printf '\033[1m▸\033[0m %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# --- the system ------------------------------------------------------------------------------------------------------

id_of_system() { . /etc/os-release && printf '%s %s' "${ID:-unknown}" "${VERSION_CODENAME:-unknown}"; }

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

runsc_date() { runsc --version 2>/dev/null | grep -oE '20[0-9]{6}' | head -1; }

runsc_is_new_enough() { local date; date=$(runsc_date) && [ -n "$date" ] && [ "$date" -ge "$RUNSC_OLDEST" ]; }

usable_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c "import sys, venv, ensurepip; sys.exit(sys.version_info < ($PYTHON_OLDEST))" 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=120 -o Acquire::Retries=5 \
        -o Dpkg::Use-Pty=0 "$@" >"$apt_log" 2>&1 || { cat "$apt_log" >&2; return 1; }
}

apt_update() {
    local attempt
    for attempt in 1 2 3; do
        apt update && return
        say "apt-get update failed; trying again ($attempt)"
        sleep 5
    done
    return 1
}

# The archive this machine takes its own packages from, as apt understands its configuration.
archive_of() {
    apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v release="$1" '$2 == release && $3 == "main" { print $1; exit }'
}

add_backports() {
    local codename=$1 archive
    [ -n "$(archive_of "$codename-backports")" ] && return
    archive=$(archive_of "$codename")
    [ -n "$archive" ] || die "cannot find this machine's Debian archive; add a source for $codename-backports by hand"
    say "adding $codename-backports, for runsc"
    as_root tee /etc/apt/sources.list.d/skerry-backports.sources >/dev/null <<SOURCE
# Added by Skerry's tools/setup.sh: gVisor (runsc) new enough is in backports only.
Types: deb
URIs: $archive
Suites: $codename-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCE
}

system_packages() {
    local codename=$1 missing=() package
    for package in "${PACKAGES[@]}"; do installed "$package" || missing+=("$package"); done
    usable_python >/dev/null || missing+=(python3 python3-venv)
    local need_runsc=
    runsc_is_new_enough || need_runsc=1
    if [ ${#missing[@]} = 0 ] && [ -z "$need_runsc" ]; then return; fi
    apt_log=$(mktemp)
    [ -n "$need_runsc" ] && [ "$codename" = bookworm ] && add_backports "$codename"
    say "installing from Debian: ${missing[*]} ${need_runsc:+runsc}"
    apt_update
    if [ ${#missing[@]} != 0 ]; then apt install --no-install-recommends "${missing[@]}"; fi
    if [ -n "$need_runsc" ]; then
        local release=()
        [ "$codename" = bookworm ] && release=(-t bookworm-backports)
        apt install --no-install-recommends "${release[@]}" runsc
    fi
    rm -f "$apt_log"
}

system() {
    local id codename
    read -r id codename < <(id_of_system; echo)
    case "$id $codename" in
        "debian bookworm" | "debian trixie") system_packages "$codename" ;;
        *) say "this is $id $codename, not Debian 12 or 13: not installing system packages" ;;
    esac
    runsc_is_new_enough || die "runsc $RUNSC_OLDEST or newer is needed (found: $(runsc_date || true)); see docs/how-to/install.md"
    for command in mmdebstrap skopeo nft mkfs.ext4 ip unshare; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null || die "$command is needed; see docs/how-to/install.md"
    done
}

# --- ours ------------------------------------------------------------------------------------------------------------

python_environment() {
    local python stamp wanted
    python=$(usable_python) || die "Python 3.11 or newer with venv is needed"
    stamp=.venv/.skerry-setup
    wanted="$(sha256sum pyproject.toml | cut -d' ' -f1) $("$python" -c 'import sys; print(sys.version_info[:2], sys.base_prefix)')"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && .venv/bin/python -c 'import skerry' 2>/dev/null; then return; fi
    say "making the Python environment in .venv"
    .venv/bin/python -c 'import pip' 2>/dev/null || "$python" -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 5 -e '.[dev]'
    printf '%s\n' "$wanted" >"$stamp"
}

template() {
    as_root ${SKERRY_IMAGES_DIR:+env SKERRY_IMAGES_DIR="$SKERRY_IMAGES_DIR"} .venv/bin/python -m skerry.host.images build base |
        while IFS= read -r line; do
            case "$line" in
                "template base is up to date"*) ;;
                *) printf '\033[2m  %.110s\033[0m\n' "$line" ;;
            esac
        done
}

say "checking this machine"
system
python_environment
make --no-print-directory agent
template
say "set up in $((SECONDS - started)) s"
