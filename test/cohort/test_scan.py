from dataclasses import replace

from nodulemc.cohort.scan import Scan
from nodulemc.points.reading import Nodule

NODULES = (Nodule("n", (1.0, 2.0, 3.0)), Nodule(None, (4.0, 5.0, 6.0)))


def test_given_points_in_the_manifest(tmp_path):
    scan = Scan("a", tmp_path / "a.mha", NODULES, (1, 0))
    assert replace(scan, path=tmp_path / "b.mha", labels=(0, None)).points_hash == scan.points_hash
    for points in (NODULES[::-1], NODULES[:1], (NODULES[0], Nodule("m", NODULES[1].point))):
        assert replace(scan, points=points).points_hash != scan.points_hash


def test_given_points_file(tmp_path):
    scan = Scan("a", tmp_path / "ct" / "a.mha", tmp_path / "a" / "points.json")
    elsewhere = tmp_path / "elsewhere"
    moved = replace(scan, path=elsewhere / "ct" / "a.mha", points=elsewhere / "a" / "points.json")
    assert moved.points_hash == scan.points_hash
    assert replace(scan, points=tmp_path / "b" / "points.json").points_hash != scan.points_hash
