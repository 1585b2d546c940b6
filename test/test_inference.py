"""The entry points as programs: `inference.py` and `nodulemc predict`, on real and made files."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import centre_of, make_ct, rotation
from dicom import write_dicom_series
from ensembles import make_untrained_ensemble

import nodulemc
from nodulemc import Ensemble
from nodulemc.models.architecture import Architecture
from nodulemc.output.multiple_points import OUTPUT_NAME

pytestmark = pytest.mark.heavy

REPOSITORY = Path(__file__).resolve().parents[1]
COMMAND = {
    "inference": [sys.executable, str(REPOSITORY / "inference.py")],
    "predict": [sys.executable, "-m", "nodulemc.cli", "predict"],
}


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resources")
    make_untrained_ensemble(folder, (1, 2))
    return folder


def run(name, *arguments):
    return subprocess.run(
        [*COMMAND[name], *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )


def case_folder(tmp_path, ct: Path | sitk.Image, points):
    folder = tmp_path / "input"
    (folder / "images" / "chest-ct").mkdir(parents=True)
    image = ct if isinstance(ct, sitk.Image) else sitk.ReadImage(str(ct))
    sitk.WriteImage(image, str(folder / "images" / "chest-ct" / "ct.mha"))
    (folder / "nodule-locations.json").write_text(json.dumps({"points": points}))
    (tmp_path / "output").mkdir()
    return folder, tmp_path / "output"


def sha256_of(file: Path) -> str:
    done = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True)
    return done.stdout.split()[0]


def probabilities(file: Path) -> list[float]:
    return [point["probability"] for point in json.loads(file.read_text())["points"]]


def test_one_ct_in_every_format_gives_the_same_probabilities(tmp_path, small_backbone):
    make_untrained_ensemble(tmp_path / "resources", architecture=Architecture(small_backbone))
    image = make_ct(size=(100, 96, 60), spacing=(0.683594, 0.683594, 1.25), direction=rotation(7, -3, 12))
    points = [{"name": "n1", "point": list(centre_of(image))}, {"name": "n2", "point": list(image.GetOrigin())}]
    (tmp_path / "points.json").write_text(json.dumps({"points": points}))
    sources = [tmp_path / f"ct{suffix}" for suffix in (".mha", ".mhd", ".nii.gz", ".nrrd")]
    for path in sources:
        sitk.WriteImage(image, str(path), useCompression=path.suffix == ".mha")
    write_dicom_series(image, tmp_path / "dicom")
    ensemble = Ensemble.load(tmp_path / "resources", device="cpu", precision="fp32")
    results = np.array(
        [
            [p.member_probabilities for p in nodulemc.predict(s, tmp_path / "points.json", ensemble)]
            for s in (*sources, tmp_path / "dicom")
        ]
    )
    assert np.ptp(results[0]) > 0.01  # the nodules do differ
    assert np.abs(results - results[0]).max() < 1e-6


def test_real_chest_ct_through_both_programs(tmp_path, resources, shared_data):
    ct = shared_data / "ct" / "chest_ct.nii.gz"
    image = sitk.ReadImage(str(ct))
    points = [
        {"name": "a", "point": list(image.TransformIndexToPhysicalPoint((30, 70, 80)))},
        {"name": "b", "point": list(image.TransformIndexToPhysicalPoint((90, 60, 50)))},
    ]
    source, target = case_folder(tmp_path, ct, points)
    done = run("inference", "--input", source, "--output", target, "--resources", resources, "--precision", "fp32",
               "--device", "cpu")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert all(line.startswith("warning: ") for line in done.stderr.splitlines())
    assert done.stderr.count("untrained: the numbers mean nothing") == 1
    assert done.stderr.count("slice spacing") == 0
    assert done.stderr.count("pixel spacing 1.50 mm is outside the training data's 0.4 to 1 mm") == 1
    done = run("predict", ct, "--points", source / "nodule-locations.json", "--resources", resources, "--precision",
               "fp32", "--device", "cpu", "--output", tmp_path / "p.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "p.json").read_text())
    ends = [f"{end(point['probability'] for point in content['points']):.4f}" for end in (min, max)]
    assert f": {len(content['points'])} nodules, probability {' to '.join(ends)}; " in done.stdout
    assert probabilities(tmp_path / "p.json") == pytest.approx(probabilities(target / OUTPUT_NAME), abs=1e-6)
    for point in content["points"]:
        by_member = list(point["per_seed"].values())
        assert list(point["per_seed"]) == ["seed_1", "seed_2"]
        assert point["probability"] == pytest.approx(np.mean(by_member))
        assert point["spread"] == pytest.approx(np.ptp(by_member))
        assert point["warnings"][0] == "the weights are untrained: the numbers mean nothing"
        assert point["warnings"][1].startswith("pixel spacing 1.50 mm")


def test_real_dicom_series_with_slicer_points_to_csv(tmp_path, resources, shared_data):
    folder = shared_data / "ct" / "dicom_series"
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    x, y, z = centre_of(reader.Execute())
    control = {"label": "F-1", "position": [-x, -y, z], "positionStatus": "defined"}
    markup = {"type": "Fiducial", "coordinateSystem": "RAS", "controlPoints": [control]}
    (tmp_path / "n.mrk.json").write_text(json.dumps({"markups": [markup]}))
    done = run("predict", folder, "--points", tmp_path / "n.mrk.json", "--resources", resources,
               "--output", tmp_path / "p.csv", "--device", "cpu")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader((tmp_path / "p.csv").read_text().splitlines())
    probability = float(row["probability"])
    assert done.stdout.startswith(f"written: {tmp_path / 'p.csv'}: 1 nodule, probability {probability:.4f}; ")
    assert row["AnnotationID"] == "F-1"
    assert [float(row[c]) for c in ("CoordX", "CoordY", "CoordZ")] == pytest.approx([x, y, z])
    seeds = [float(row[f"seed_{k}"]) for k in (1, 2)]
    assert float(row["probability"]) == pytest.approx(np.mean(seeds))


def test_table_on_stdout(tmp_path, resources):
    image = make_ct()
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    x, y, z = centre_of(image)
    (tmp_path / "t.csv").write_text(f"AnnotationID,CoordX,CoordY,CoordZ\nn1,{x},{y},{z}\n")
    done = run(
        "predict", tmp_path / "ct.nrrd", "--points", tmp_path / "t.csv", "--resources", resources, "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr
    head, row, ensemble, foot = done.stdout.splitlines()
    assert head.split() == ["nodule", "probability", "seed_1", "seed_2"]
    assert row.split()[0] == "n1"
    assert len(row.split()) == 4
    assert ensemble == f"ensemble: {resources} (SHA-256 {sha256_of(resources / 'ensemble.json')[:12]})"
    assert foot == "weights trained on: nothing (untrained)"


def test_an_ensemble_in_a_folder_of_its_own_is_found_and_named(tmp_path, resources):
    shutil.copytree(resources, tmp_path / "model" / "wrapped")
    image = make_ct()
    source, target = case_folder(tmp_path, image, [{"name": "n1", "point": list(centre_of(image))}])
    ct, points = source / "images" / "chest-ct" / "ct.mha", source / "nodule-locations.json"
    done = run("predict", ct, "--points", points, "--resources", tmp_path / "model", "--device", "cpu",
               "--output", tmp_path / "p.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "p.json").read_text())
    digest = sha256_of(resources / "ensemble.json")
    assert content["ensemble"] == {"path": str(tmp_path / "model" / "wrapped"), "sha256": digest}
    # Grand-Challenge's own output stays as its contract has it.
    done = run("inference", "--input", source, "--output", target, "--resources", tmp_path / "model", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert set(json.loads((target / OUTPUT_NAME).read_text())) == {"name", "type", "points", "version"}
    (tmp_path / "model" / "wrapped" / "ensemble.json").rename(tmp_path / "model" / "wrapped" / "other.json")
    done = run("inference", "--input", source, "--output", target, "--resources", tmp_path / "model", "--device", "cpu")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no ensemble.json in it or one folder below; it holds wrapped/: ")
    assert list(target.iterdir()) == []


def damaged_checksum(source, resources):
    seed = resources / "seed_2.safetensors"
    content = bytearray(seed.read_bytes())
    content[-1] ^= 1
    seed.write_bytes(content)
    return "seed_2.safetensors"


def missing_manifest(source, resources):
    (resources / "ensemble.json").unlink()
    return "no ensemble.json"


def two_cts(source, resources):
    folder = source / "images" / "chest-ct"
    shutil.copy(folder / "ct.mha", folder / "second.mha")
    return "2 CTs (ct.mha, second.mha)"


def truncated_ct(source, resources):
    ct = source / "images" / "chest-ct" / "ct.mha"
    ct.write_bytes(ct.read_bytes()[:-1000])
    return "ct.mha"


def outside(source, resources):
    points = [{"name": "far", "point": [1000, 1000, 1000]}]
    (source / "nodule-locations.json").write_text(json.dumps({"points": points}))
    return "mm outside the CT"


@pytest.mark.parametrize("damage", [damaged_checksum, missing_manifest, two_cts, truncated_ct, outside])
def test_bad_input_is_exit_code_2_one_line_and_no_output(tmp_path, resources, damage):
    image = make_ct()
    own = shutil.copytree(resources, tmp_path / "resources")
    source, target = case_folder(tmp_path, image, [{"name": "n1", "point": list(centre_of(image))}])
    (target / OUTPUT_NAME).write_text("an earlier case's result")
    named = damage(source, own)
    done = run("inference", "--input", source, "--output", target, "--resources", own, "--device", "cpu")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert named in errors[0]
    assert not list(target.iterdir())


def test_predict_refuses_an_unknown_output_type_before_any_work(tmp_path):
    done = run("predict", "nothing.mha", "--points", "nothing.json", "--output", tmp_path / "p.txt")
    assert done.returncode == 2
    assert done.stderr == f"error: unknown output type: {tmp_path / 'p.txt'}: name a .json or .csv file\n"


def test_a_case_on_the_cpu_imports_nothing_that_it_does_not_need(tmp_path, resources):
    source, target = case_folder(tmp_path, make_ct(), [{"name": "a", "point": centre_of(make_ct())}])
    code = (
        "import runpy, sys\n"
        "try: runpy.run_path('inference.py', run_name='__main__')\n"
        "except SystemExit as ended: assert not ended.code\n"
        "heavy = ('torch', 'torchvision', 'pandas', 'scipy', 'sklearn', 'matplotlib', 'urllib.request',\n"
        "         'openvino.tools', 'openvino_telemetry', 'nodulemc.training', 'nodulemc.evaluation')\n"
        "assert not [name for name in heavy if name in sys.modules], sys.modules.keys()\n"
    )
    options = ["--input", source, "--output", target, "--resources", resources, "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, options)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_predict_never_overwrites_its_points(tmp_path):
    points = tmp_path / "p.json"
    points.write_text("{}")
    (tmp_path / "link.json").symlink_to(points)
    for output in (points, tmp_path / "link.json"):
        done = run("predict", "nothing.mha", "--points", points, "--output", output)
        assert done.returncode == 2
        assert done.stderr.startswith("error: the output is an input, too: ")
        assert points.read_text() == "{}"
