import numpy as np
import pytest
import safetensors.numpy

from nodulemc.ensemble.weights import parse_weights
from nodulemc.errors import EnsembleError
from nodulemc.models.architecture import Architecture
from nodulemc.models.tensor_shapes import tensor_shapes

WITH_DECODER = Architecture("inception_i3d", decoder_widths=(4, 4, 4, 4, 4))
BARE = Architecture("inception_i3d")
VARIANCE = "backbone.conv3d_1a_7x7.batch3d.running_var"


def filled(architecture: Architecture) -> dict[str, np.ndarray]:
    shapes = tensor_shapes(architecture, with_decoder=architecture.decoder_widths is not None)
    return {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}


def test_all_tensors_but_the_counters_are_read():
    tensors = filled(WITH_DECODER)
    content = safetensors.numpy.save(tensors | {"backbone.num_batches_tracked": np.array(3)})
    assert parse_weights(content, WITH_DECODER, "seed").keys() == tensors.keys()


@pytest.mark.parametrize(
    ("stated", "stored", "change", "message"),
    [
        (BARE, WITH_DECODER, {}, r"tensors left over \(aux_model"),
        (WITH_DECODER, BARE, {}, r"tensors missing \(aux_model"),
        (BARE, BARE, {VARIANCE: np.full(64, -1, np.float32)}, f"variance below 0 in {VARIANCE}"),
        (BARE, BARE, {VARIANCE: np.ones(64, np.float64)}, "of type F64"),
        (WITH_DECODER, WITH_DECODER, {"aux_model.last_layer.bias": np.array([np.nan], np.float32)}, "NaN or infinite"),
    ],
)
def test_tensors_that_make_no_network_are_refused(stated, stored, change, message):
    with pytest.raises(EnsembleError, match=f"{message}.*: seed: "):
        parse_weights(safetensors.numpy.save(filled(stored) | change), stated, "seed")


def test_an_older_versions_attribute_head_is_called_so():
    """It read the 1,024 pooled features alone. A head of other attributes is no older version's."""
    architecture = Architecture("inception_i3d", attributes=("margin",))
    older = {"attribute_head.weight": np.zeros((1, 1024), np.float16)}
    message = r"^1 tensor of another shape \(attribute_head\.weight\): seed: it is an older version's; train the head"
    with pytest.raises(EnsembleError, match=message):
        parse_weights(safetensors.numpy.save(filled(architecture) | older), architecture, "seed")
    two = filled(Architecture("inception_i3d", attributes=("margin", "texture")))
    with pytest.raises(EnsembleError, match=r"another shape .*: seed: give a checkpoint of this architecture"):
        parse_weights(safetensors.numpy.save(two), architecture, "seed")
