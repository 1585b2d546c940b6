import json
import stat

import pytest

from nodulemc.errors import FileError
from nodulemc.util.files import no_empty_folders, none_on_failure, remove_old
from nodulemc.util.json_files import read_json, write_json_atomically


def test_written_json_is_readable_by_others_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "out.json"
    write_json_atomically(path, {"name": "ä", "value": 0.1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "ä", "value": 0.1}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    path.write_text("old")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(FileError, match=r"cannot write \(No space left on device\)"):
        write_json_atomically(path, {"a": 1})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nan_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json_atomically(tmp_path / "out.json", {"p": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b'["\xed\xa0\x80"]', "[1]".encode("utf-16"), "[1]".encode("utf-32-le"), b"\xff"])
def test_what_is_not_utf_8_is_refused(tmp_path, content):
    path = tmp_path / "in.json"
    path.write_bytes(content)
    with pytest.raises(FileError, match="malformed JSON"):
        read_json(path)


def test_a_byte_order_mark_is_left_out(tmp_path):
    path = tmp_path / "in.json"
    path.write_text("\ufeff[1]", encoding="utf-8")
    assert read_json(path) == [1]


def test_an_old_output_is_removed_or_the_reason_told(tmp_path):
    path = tmp_path / "out.json"
    remove_old(path)
    path.touch()
    remove_old(path)
    assert not path.exists()
    path.mkdir()
    with pytest.raises(FileError, match="cannot remove the old output"):
        remove_old(path)


def test_files_stay_only_where_all_goes_well(tmp_path):
    paths = [tmp_path / "a", tmp_path / "none", tmp_path / "b"]
    for path in (paths[0], paths[2]):
        path.touch()
    with none_on_failure(paths):
        pass
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(KeyboardInterrupt), none_on_failure(paths):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def make_in_vain(root, folders):
    with no_empty_folders(*folders, root / ("x" * 300)):
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        (root / "kept" / "file").touch()
        raise KeyboardInterrupt


def test_folders_that_were_made_in_vain_are_removed(tmp_path):
    """Not those that were there or hold something."""
    (tmp_path / "old").mkdir()
    with pytest.raises(KeyboardInterrupt):
        make_in_vain(tmp_path, [tmp_path / name for name in ("old", "old/new", "a/b", "a/c", "kept/d")])
    assert {*tmp_path.rglob("*")} == {tmp_path / name for name in ("old", "kept", "kept/file")}
    with no_empty_folders(tmp_path / "a"):
        (tmp_path / "a").mkdir()
    assert (tmp_path / "a").is_dir()
