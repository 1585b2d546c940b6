import pytest
import torch

from nodulemc.models.architecture import Architecture
from nodulemc.models.multitask import create_model
from nodulemc.models.tensor_shapes import tensor_shapes


@pytest.mark.parametrize("decoder", [None, (832, 480, 192, 64, 64), (32, 48, 16, 8, 8)])
@pytest.mark.parametrize(("head", "attributes"), [((), ()), ((16, 8), ("texture", "margin"))])
@pytest.mark.parametrize("pooling", ["global", "centre"])
@pytest.mark.parametrize("backbone", ["inception_i3d", "i3d_r50"])
def test_names_and_shapes_are_those_of_the_network(backbone, pooling, head, attributes, decoder):
    architecture = Architecture(backbone, head, decoder, pooling, attributes)
    with torch.device("meta"):
        network = create_model(architecture, with_decoder=decoder is not None)
    expected = {n: tuple(v.shape) for n, v in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert tensor_shapes(architecture, with_decoder=decoder is not None) == expected
