import os
from pathlib import Path

import pytest

from nodulemc.errors import ConfigError, FileError
from nodulemc.util.files import read_limited, refuse_input, visible, write_atomically


def test_a_file_may_be_as_large_as_the_limit_and_no_larger(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4096)
    assert read_limited(path, 1 << 20) == path.read_bytes()
    path.write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(FileError, match=r"holds more than 1 MiB: .*file: "):
        read_limited(path, 1 << 20)
    path.write_bytes(b"")
    assert read_limited(path, 0) == b""


def test_what_would_never_end_is_not_read(tmp_path):
    """A pipe that nobody writes to, and a device without an end, also behind a link."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero"), tmp_path):
        with pytest.raises(FileError, match="not a regular file"):
            read_limited(path, 10)
    with pytest.raises(FileError, match=r"cannot read the file .*null byte"):
        read_limited(tmp_path / "a\0b", 10)


def test_an_output_that_is_an_input_by_any_name_is_refused(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ct.mha").touch()
    (tmp_path / "other").symlink_to("in")
    monkeypatch.chdir(tmp_path)
    given = [Path("in/ct.mha")]
    for same in ("in/ct.mha", "in/../in/ct.mha", "other/ct.mha", str(tmp_path / "in" / "ct.mha")):
        with pytest.raises(ConfigError, match="the mask is an input, too"):
            refuse_input(Path(same), given, "mask")
    refuse_input(Path("in/ct2.mha"), given, "mask")
    refuse_input(Path("in/ct.mha"), [], "mask")


def test_hidden_files_are_left_out_and_the_others_sorted(tmp_path):
    for name in ("b", "._b", "a", ".DS_Store", "A"):
        (tmp_path / name).touch()
    assert [path.name for path in visible(tmp_path.iterdir())] == ["A", "a", "b"]


@pytest.mark.parametrize("exists", [False, True])
def test_whatever_the_umask_others_may_read_what_is_written(tmp_path, exists):
    path = tmp_path / "file"
    if exists:
        path.write_bytes(b"before")
    before = os.umask(0o077)
    try:
        write_atomically(path, b"content")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [*tmp_path.iterdir()] == [path]


def test_a_link_to_an_older_output_is_replaced_and_its_target_kept(tmp_path):
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", b"content")
    assert (tmp_path / "target").read_bytes() == b"target"
    assert (tmp_path / "link").read_bytes() == b"content"
