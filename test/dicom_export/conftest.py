import pytest
from dicom_export.made import use_balls, write_points, write_series


@pytest.fixture
def case(tmp_path, monkeypatch):
    """A folder with a series, its points, and the ensemble of balls in use."""
    use_balls(monkeypatch)
    write_points(tmp_path / "points.json", write_series(tmp_path / "ct"))
    return tmp_path
