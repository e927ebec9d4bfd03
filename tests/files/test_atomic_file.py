from __future__ import annotations

import errno
import os
import stat

import pytest

from polygraphy_layerprec.files import atomic_file
from polygraphy_layerprec.files.atomic_file import (
    check_writable,
    write_file,
    write_files,
    write_text_file,
)


def test_the_text_is_written_as_it_is(tmp_path):
    path = tmp_path / "file.txt"

    write_text_file(str(path), "first\nsecond é\r\n")

    assert path.read_bytes() == "first\nsecond é\r\n".encode()


def test_nothing_else_is_left_in_the_directory(tmp_path):
    write_text_file(str(tmp_path / "file.txt"), "text")

    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_half_way_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, error):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail(_source, _target):
        raise error

    monkeypatch.setattr(atomic_file.os, "replace", fail)
    with pytest.raises(type(error)):
        write_text_file(str(path), "new")

    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def write_new(file):
    file.write(b"new")


def fill_the_disk(_file):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_names_the_file_that_was_to_be_written(tmp_path):
    path = str(tmp_path / "file.txt")

    with pytest.raises(OSError, match="No space left on device") as raised:
        write_file(path, fill_the_disk)

    assert raised.value.filename == path
    assert os.listdir(tmp_path) == []


def test_an_error_about_another_file_names_that_one(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        write_file(str(tmp_path / "file.txt"), lambda _: os.stat(tmp_path / "source"))

    assert raised.value.filename == str(tmp_path / "source")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), ValueError()]
)
def test_of_several_files_all_are_replaced_or_none(tmp_path, error):
    def fail(_file):
        raise error

    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("old")
    second.write_text("old")

    with pytest.raises(type(error)):
        write_files({str(first): write_new, str(second): fail})

    assert (first.read_text(), second.read_text()) == ("old", "old")
    assert sorted(os.listdir(tmp_path)) == ["first", "second"]

    write_files({str(path): write_new for path in (first, second)})

    assert (first.read_text(), second.read_text()) == ("new", "new")
    assert sorted(os.listdir(tmp_path)) == ["first", "second"]


def test_a_file_may_be_named_by_its_content(tmp_path):
    def write_and_name(file):
        write_new(file)
        return str(tmp_path / "named-new")

    write_files({str(tmp_path / "named"): write_and_name, str(tmp_path / "other"): write_new})

    assert sorted(os.listdir(tmp_path)) == ["named-new", "other"]
    assert (tmp_path / "named-new").read_text() == "new"


def test_what_is_no_text_is_spelt_out(tmp_path):
    write_text_file(str(tmp_path / "file.txt"), "name \udcff")

    assert (tmp_path / "file.txt").read_bytes() == b"name \\udcff"


def test_permissions_are_those_of_any_new_file(tmp_path):
    plain = tmp_path / "plain.txt"
    plain.write_text("")

    write_text_file(str(tmp_path / "file.txt"), "text")

    assert (tmp_path / "file.txt").stat().st_mode == plain.stat().st_mode


def test_permissions_of_an_existing_file_stay(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    path.chmod(0o640)

    write_text_file(str(path), "new")

    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)

    write_text_file(str(link), "new")

    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing/file.json", "does not exist"),
        ("folder", "is a directory"),
        ("/dev/null", "is not a regular file"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused(tmp_path, path, message):
    (tmp_path / "folder").mkdir()

    with pytest.raises(ValueError, match=message):
        check_writable(str(tmp_path / path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)

    with pytest.raises(ValueError, match="is not writable"):
        check_writable(str(tmp_path / "file.json"))


def test_checking_leaves_no_trace(tmp_path):
    check_writable(str(tmp_path / "file.json"))

    assert os.listdir(tmp_path) == []
