"""The yardstick of benchmarks/cold_start.py says the same as the package."""

import sys
from pathlib import Path

import pytest
from cases import make_case, output_of
from conftest import centre_of, make_ct
from ensembles import make_untrained_ensemble

from nodulemc.ct.volume import read_volume
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.models.architecture import Architecture
from nodulemc.patch import extract_patch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

sys.path.insert(0, str(BENCHMARKS))
try:
    import reference_loop
finally:
    # test/training would be taken for benchmarks/training.py.
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.heavy
def test_the_loop_gives_the_packages_probabilities(folders, tmp_path, monkeypatch):
    """Of members with an attribute head, too, as the shipped ones have, though the reference has none."""
    case, output = folders
    point = centre_of(make_ct())
    make_case(case, [{"name": "a", "point": point}])
    architecture = Architecture("inception_i3d", attributes=("margin",))
    manifest = make_untrained_ensemble(tmp_path / "ensemble", (1, 2), architecture=architecture)
    checkpoints = reference_loop.write_checkpoints(tmp_path, manifest.folder, manifest.members)
    monkeypatch.setattr(sys, "argv", ["reference_loop.py", *map(str, (case, output, *checkpoints))])
    reference_loop.main()

    ensemble = Ensemble.load(manifest.folder, device="cpu", precision="fp32")
    patch = extract_patch(read_volume(next((case / "images" / "chest-ct").iterdir())), point)
    (expected,) = ensemble.vote(ensemble.member_probabilities(patch[None]))
    (found,) = output_of(output)["points"]
    assert found["probability"] == pytest.approx(expected, abs=1e-4)
    assert 0.01 < expected < 0.99
