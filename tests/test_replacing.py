"""Files and folders are written whole or not at all, whatever stood there and whenever a process dies."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from credibly.errors import CrediblyError, InputError
from credibly.runs import replacing, write_json, write_text
from test_runs import names_in


def test_a_failing_write_leaves_the_old_file_and_no_trace(tmp_path):
    target = tmp_path / "file.txt"
    write_text(target, "old")

    def write_half():
        with replacing(target) as temporary:
            temporary.write_text("half of the n", encoding="utf-8")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert target.read_text(encoding="utf-8") == "old"
    assert names_in(tmp_path) == ["file.txt"]


def test_an_interrupted_write_leaves_the_old_folder(tmp_path):
    target = tmp_path / "student"
    target.mkdir()
    (target / "weights").write_text("old", encoding="utf-8")

    def write_half():
        with replacing(target) as temporary:
            temporary.mkdir()
            (temporary / "weights").write_text("new", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert (target / "weights").read_text(encoding="utf-8") == "old"
    assert names_in(tmp_path) == ["student"]


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "deep" / "student"
    for names in (("a", "b"), ("c",)):
        with replacing(target) as temporary:
            temporary.mkdir()
            for name in names:
                (temporary / name).touch()
        assert names_in(target) == list(names)
    assert names_in(target.parent) == ["student"]


def write_folder(target, name="new"):
    with replacing(target) as temporary:
        temporary.mkdir()
        (temporary / name).touch()


@pytest.mark.parametrize("named", [".", "..", "../here", "/"])
def test_a_folder_around_where_one_works_is_refused_before_any_work(tmp_path, monkeypatch, named):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "thesis.txt").touch()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InputError, match="in which you are; name one inside it"), replacing(Path(named)):
        pytest.fail("work began")
    assert names_in(tmp_path / "here") == ["thesis.txt"]


def test_a_mount_point_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    with pytest.raises(InputError, match="a mount point; name one inside it"), replacing(tmp_path):
        pytest.fail("work began")


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "disk" / "run" / "old").touch()
    link = tmp_path / "link"
    link.symlink_to("disk/run")
    write_folder(link)
    assert link.is_symlink()
    assert names_in(tmp_path / "disk" / "run") == ["new"]
    assert names_in(tmp_path) == ["disk", "link"]
    assert names_in(tmp_path / "disk") == ["run"]


def test_an_old_folder_is_back_in_its_place_where_the_new_one_cannot_be_moved_there(tmp_path, monkeypatch):
    write_folder(tmp_path / "run", "old")
    move = Path.replace

    def stuck(path, target):
        if (path / "new").exists():
            raise OSError(errno.EIO, "input/output error")
        return move(path, target)

    monkeypatch.setattr(Path, "replace", stuck)
    with pytest.raises(OSError, match="input/output"):
        write_folder(tmp_path / "run")
    assert names_in(tmp_path / "run") == ["old"]
    assert names_in(tmp_path) == ["run"]


def test_what_a_killed_process_of_the_same_number_left_is_not_in_the_way(tmp_path):
    """In a container the process that is started again has the number of the one that was killed."""
    write_folder(tmp_path / "run", "old")
    for ending in ("", ".old"):
        write_folder(tmp_path / f".run.{os.getpid()}{ending}", "half")
    write_folder(tmp_path / "run")
    assert names_in(tmp_path / "run") == ["new"]
    assert names_in(tmp_path) == ["run"]


KILLED = """
import os, shutil, sys
from pathlib import Path
from credibly.runs import replacing

target, moves = Path(sys.argv[1]), iter(range(int(sys.argv[2])))
move = Path.replace
Path.replace = lambda path, place: os._exit(0) if next(moves, None) is None else move(path, place)
shutil.rmtree = lambda *given, **named: os._exit(0)
with replacing(target) as temporary:
    temporary.mkdir()
    (temporary / "new").touch()
os._exit(1)
"""


@pytest.mark.parametrize("moves", range(3))
def test_a_process_killed_at_any_step_of_a_replacement_leaves_both_folders_whole(tmp_path, moves):
    write_folder(tmp_path / "run", "old")
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "run"), str(moves)], check=True)
    assert sorted(name for folder in tmp_path.iterdir() for name in names_in(folder)) == ["new", "old"]
    assert (tmp_path / "run").is_dir() == (moves != 1)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_keeps_the_old_file(tmp_path, monkeypatch, code):
    target = tmp_path / "report.json"
    write_json(target, {"kept": True})

    def full(path, content):
        with path.open("wb") as handle:
            handle.write(content[:3])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CrediblyError, match="no room on the disk") as caught:
        write_json(target, {"kept": False})
    assert str(target) in str(caught.value)
    assert "--resume" in str(caught.value)
    assert caught.value.exit_code == 1
    assert json.loads(target.read_text(encoding="utf-8")) == {"kept": True}
    assert names_in(tmp_path) == ["report.json"]


def test_a_disk_that_is_full_only_when_flushed_is_told(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CrediblyError, match="no room on the disk"):
        write_text(tmp_path / "a", "text")
    assert names_in(tmp_path) == []


def test_other_failures_of_the_disk_are_not_called_a_full_disk(tmp_path, monkeypatch):
    def broken(path, content):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(Path, "write_bytes", broken)
    with pytest.raises(OSError, match="input/output"):
        write_text(tmp_path / "a", "text")


def test_json_is_readable_text_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"名": 1})
    assert "名" in (tmp_path / "a.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"名": 1}
