import pytest

from nodulemc.columns import LUNA25, canonical, two_points


def test_luna25s_names_stay():
    assert canonical(LUNA25) == list(LUNA25)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        # LUNA16's annotations.csv and candidates.csv
        (
            ["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"],
            ["SeriesInstanceUID", "CoordX", "CoordY", "CoordZ", "diameter_mm"],
        ),
        (
            ["seriesuid", "coordX", "coordY", "coordZ", "class"],
            ["SeriesInstanceUID", "CoordX", "CoordY", "CoordZ", "class"],
        ),
        (["name", "x", "y", "z"], ["AnnotationID", "CoordX", "CoordY", "CoordZ"]),
        (["ID", "X", "Y", "Z"], ["AnnotationID", "CoordX", "CoordY", "CoordZ"]),
        (["Patient ID", "annotation_id", "Coord-X", "Label"], ["PatientID", "AnnotationID", "CoordX", "label"]),
        (["id", "name", "AnnotationID"], ["id", "name", "AnnotationID"]),
        (["id", "name"], ["id", "AnnotationID"]),
        (["x", "CoordX", "voxel_x"], ["x", "CoordX", "voxel_x"]),
        (["coordX", "CoordX"], ["CoordX", "CoordX"]),
        (["CT", "points"], ["ct", "points"]),
        (["seed_1", "Seed 2", "mask"], ["seed_1", "Seed 2", "mask"]),
    ],
)
def test_other_names_for_the_same(header, expected):
    assert canonical(header) == expected


def test_coordinates_twice():
    assert two_points(canonical(["x", "y", "z", "coordX", "coordY", "coordZ"]))
    assert not two_points(canonical(["x", "coordX", "coordY", "coordZ"]))
    assert not two_points(canonical(["x", "y", "z"]))
