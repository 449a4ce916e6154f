import os
import subprocess
from pathlib import Path

from bench import procs

V1 = "8:pids:/a\n5:memory:/skerry/x/one\n1:name=systemd:/\n0::/unified\n"
V2 = "0::/skerry/x/two\n"


def test_the_memory_group_is_found_on_both_versions() -> None:
    assert procs.parse_cgroup(V1) == "/skerry/x/one"
    assert procs.parse_cgroup(V2) == "/skerry/x/two"
    assert procs.parse_cgroup("3:cpu,memory:/both:with colon\n") == "/both:with colon"
    assert procs.parse_cgroup("") == ""


def test_rollups_are_added_up() -> None:
    text = (
        "1000-2000 ---p 0 00:00 0 [rollup]\nRss: 2048 kB\nPss: 1024 kB\nPrivate_Clean: 256 kB\nPrivate_Dirty: 256 kB\n"
    )
    one = procs.parse_rollup(text)
    assert one == procs.Memory(rss=2, pss=1, private=0.5)
    assert one + one == procs.Memory(rss=4, pss=2, private=1)


def test_cpu_time_is_read_past_a_command_with_brackets() -> None:
    fields = ["S"] + ["0"] * 10 + ["250", "150"] + ["0"] * 20
    assert procs.parse_stat_cpu_s(f"7 (a) b (c) {' '.join(fields)}") == 400 / procs.TICKS_PER_S


def test_the_machines_cpu_time_is_read_by_kind() -> None:
    times = procs.parse_machine_cpu_s("cpu  100 0 200 300 0 0 0 0 0 0\ncpu0 1 2 3\n")
    assert times["system"] == 200 / procs.TICKS_PER_S
    assert times["idle"] == 300 / procs.TICKS_PER_S


def test_this_process_is_seen_as_the_kernel_sees_it() -> None:
    mine = procs.memory([os.getpid()])
    assert 0 < mine.private <= mine.pss <= mine.rss
    assert procs.cpu_s(os.getpid()) >= 0
    group = procs.parse_cgroup(Path("/proc/self/cgroup").read_text())
    assert os.getpid() in procs.by_cgroup()[group]


def test_a_process_that_ended_counts_nothing() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert procs.memory([child.pid]) == procs.Memory()


def test_children_are_found() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert child.pid in procs.children(os.getpid())
        child.kill()
    assert child.pid not in procs.children(os.getpid())
