"""A third backbone, in one module: a stem that no upscaling can be absorbed into, a concatenation and shortcuts."""

from collections.abc import Iterator

from nodulemc.models.backbone import Backbone, Layers, Value, centred, same


class SmallI3d(Backbone):
    """Names as torchvision gives them."""

    name = "small_i3d"
    zero_norms = "bn2"

    def feature_maps(self, layers: Layers[Value], x: Value) -> Iterator[Value]:
        """(N, 3, D, H, W) to five maps, each but the first of half the size of the one before."""
        x = layers.relu(layers.conv_bn(x, "conv1", "bn1", 4, centred((3, 5, 5))))
        yield x
        for stage in range(1, 5):
            x = layers.max_pool(x, same(2, 2))
            wide = layers.conv_bn_relu(x, f"layer{stage}.wide", 3, same((1, 4, 4)))
            x = layers.concatenate([x, wide])
            y = layers.conv_bn(x, f"layer{stage}.conv2", f"layer{stage}.bn2", 4 + 3 * stage, centred((3, 1, 1)))
            x = layers.relu(layers.add(x, y))
            yield x
