import subprocess
import sys

import pytest

from nodulemc.errors import EnsembleError
from nodulemc.models.architecture import Architecture


def test_json_round_trip():
    architecture = Architecture("i3d_r50", head_widths=(64, 8), decoder_widths=(9, 8, 7, 6, 5))
    stated = architecture.to_json()
    assert (
        Architecture.from_json({k: list(v) if isinstance(v, tuple) else v for k, v in stated.items()}) == architecture
    )


@pytest.mark.parametrize(
    "change",
    [{"backbone": "vgg"}, {"backbone": ["i3d_r50"]}, {"backbone": {}},
     {"head_widths": [0]}, {"head_widths": "64"}, {"decoder_widths": [1, 2]}, {"extra": 1},
     {"decoder_widths": [8, 8, 8, 8, True]}, {"attributes": ["malignancy"]}, {"attributes": ["texture", "texture"]},
     {"attributes": "texture"}, {"attributes": [[]]}, {"attributes": None}],
)  # fmt: skip
def test_what_names_no_network_is_refused(change):
    with pytest.raises(EnsembleError):
        Architecture.from_json({"backbone": "inception_i3d", "head_widths": [], "decoder_widths": None} | change)


def test_attributes_are_stated_where_there_are_any():
    plain = Architecture("inception_i3d")
    assert plain.to_json() == {"backbone": "inception_i3d", "head_widths": (), "decoder_widths": None}
    assert Architecture.from_json(plain.to_json()) == plain
    rated = Architecture("inception_i3d", attributes=["texture", "spiculation"])
    assert rated.to_json()["attributes"] == ("texture", "spiculation")
    assert Architecture.from_json(rated.to_json()) == rated


def test_needs_no_torch():
    code = "import sys, nodulemc.models.architecture; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
