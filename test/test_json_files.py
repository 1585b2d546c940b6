import json
import stat

import pytest

from nodulemc.errors import CaseError
from nodulemc.json_files import write_json_atomically


def test_written_json_is_readable_by_others_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "out.json"
    write_json_atomically(path, {"name": "ä", "value": 0.1}, CaseError)
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "ä", "value": 0.1}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    path.write_text("old")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(CaseError, match=r"cannot write \(No space left on device\)"):
        write_json_atomically(path, {"a": 1}, CaseError)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nan_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json_atomically(tmp_path / "out.json", {"p": float("nan")}, CaseError)
    assert not list(tmp_path.iterdir())
