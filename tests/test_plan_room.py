"""The room a machine has: free memory within control groups, and disks with what a run replaces."""

import os
import shutil
from pathlib import Path

import pytest

from credibly.workflows.planning import machine
from credibly.workflows.planning.machine import Room, free_memory


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("version", [1, 2])
def test_free_memory_is_the_machines_or_less_in_a_control_group(tmp_path, monkeypatch, version):
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    monkeypatch.setattr(machine, "PROC", proc)
    monkeypatch.setattr(machine, "CGROUPS", groups)
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert free_memory() == installed
    write(proc / "meminfo", "MemTotal: 900 kB\nMemAvailable: 500 kB\n")
    assert free_memory() == 500 * 1024
    root = groups if version == 2 else groups / "memory"
    limit, usage = (
        ("memory.max", "memory.current")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    write(proc / "self/cgroup", "0::/outer/inner\n" if version == 2 else "3:cpu:/\n4:memory:/outer/inner\n")
    write(root / "outer/inner" / limit, "max\n" if version == 2 else f"{1 << 62}\n")
    write(root / "outer/inner" / usage, "300\n")
    assert free_memory() == 500 * 1024
    write(root / "outer" / limit, "100000\n")
    write(root / "outer" / usage, "40000\n")
    write(root / "outer/memory.stat", "anon 1\ninactive_file 5000\nactive_file 200\n")
    assert free_memory() == 100000 - 40000 + 5200
    write(root / "outer" / usage, "200000\n")
    assert free_memory() == 0


def test_run_folder_and_cache_may_lie_on_one_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDIBLY_HOME", str(tmp_path / "cache" / "to" / "come"))
    assert Room.here(tmp_path / "runs" / "one").one_disk
    processes = Path("/proc")
    if processes.is_dir():
        assert not Room.here(processes).one_disk


def test_room_is_that_of_the_disks_and_of_what_is_replaced(tmp_path):
    run = tmp_path / "runs" / "one"
    before = Room.here(run)
    free = shutil.disk_usage(tmp_path).free
    assert abs(before.output - free) < 1 << 28
    write(run / "recipe.yaml", "")
    with (run / "old.safetensors").open("wb") as handle:
        handle.truncate(1 << 40)  # sparse: it takes no room
    assert Room.here(run).output > before.output + (1 << 39)
    assert (before.memory, before.device) == (before.device, before.memory)
