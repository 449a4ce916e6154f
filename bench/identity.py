"""Is a new sandbox new? What a shell inside can see of its identity, compared with every earlier one. Pure.

The public ComputeSDK benchmark does the same: a marker that is already there fails the iteration, and so would too many
signals that were seen before.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MARKERS = ("/tmp/.skerry_bench_marker", "/var/tmp/.skerry_bench_marker")
SIGNALS = ("ns_mnt", "ns_pid", "ns_uts", "cgroup", "boot_id", "pid1")
"""What should differ between two sandboxes; the public benchmark suspects reuse when three of them repeat."""
SUSPICIOUS = 3

PROBE = r"""
for file in @A@ @B@; do [ -e "$file" ] && printf 'marker=%s\n' "$file"; done
for kind in mnt pid uts; do printf 'ns_%s=%s\n' "$kind" "$(readlink /proc/self/ns/$kind)"; done
printf 'cgroup=%s\n' "$(sha256sum < /proc/self/cgroup | cut -c1-64)"
printf 'boot_id=%s\n' "$(cat /proc/sys/kernel/random/boot_id)"
printf 'pid1=%s\n' "$(tr '\0' ' ' < /proc/1/cmdline)"
printf 'uptime=%s\n' "$(cut -d' ' -f1 /proc/uptime)"
printf '%s' "$1" > @A@ && printf '%s' "$1" > @B@
""".replace("@A@", MARKERS[0]).replace("@B@", MARKERS[1])


class Reused(Exception):
    """A sandbox held what another one was given."""


@dataclass(slots=True)
class Identities:
    """What earlier sandboxes of this run said they were."""

    seen: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    most_repeated: int = 0
    """The largest number of signals of one sandbox that had been seen before."""

    def check(self, identity: dict[str, str]) -> None:
        """Raises Reused when a marker was there."""
        if "marker" in identity:
            raise Reused(f"a new sandbox held {identity['marker']}")
        repeated = 0
        for name in SIGNALS:
            values, value = self.seen.setdefault(name, set()), identity.get(name, "")
            repeated += bool(value) and value in values
            values.add(value)
        self.most_repeated = max(self.most_repeated, repeated)


def parse_identity(output: str) -> dict[str, str]:
    """The probe's `name=value` lines."""
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
