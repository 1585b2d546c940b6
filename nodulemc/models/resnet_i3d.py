"""I3D with a ResNet-50: ``pytorchvideo.models.hub.i3d_r50``, version 0.1.5, without its classifier."""

from collections.abc import Iterator

from nodulemc.models.backbone import Backbone, KineticsFile, Layers, Value, centred, same


class I3dR50(Backbone):
    """The inflated ResNet-50. Key names are pytorchvideo's (``blocks.0`` stem to ``blocks.5`` last stage)."""

    name = "i3d_r50"
    kinetics = KineticsFile(
        "I3D_8x8_R50.pyth",
        "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/I3D_8x8_R50.pyth",
        None,
        None,
        "blocks.6.",
    )
    he_normal = True
    zero_norms = "norm_c"

    def feature_maps(self, layers: Layers[Value], x: Value) -> Iterator[Value]:
        """Give the feature maps from fine to coarse.

        Args:
            layers: The layers to call.
            x: (N, 3, D, H, W). D must be divisible by 2, H and W by 32.

        Yields:
            The maps after the stem and its pool (N, 64, D, H/4, W/4), then after the four residual stages (N, 256, D,
                H/4, W/4), (N, 512, D/2, H/8, W/8), (N, 1024, D/2, H/16, W/16) and (N, 2048, D/2, H/32, W/32).
        """
        x = layers.relu(layers.conv_bn(x, "blocks.0.conv", "blocks.0.norm", 64, centred((5, 7, 7), (1, 2, 2))))
        x = layers.max_pool(x, centred((1, 3, 3), (1, 2, 2)))
        yield x
        x = _stage(layers, x, "blocks.1", 64, depths=(3, 3, 3), stride=1)
        yield x
        # This is block 2, without tensors. Block 6 is the classifier.
        x = layers.max_pool(x, same((2, 1, 1), (2, 1, 1)))
        x = _stage(layers, x, "blocks.3", 128, depths=(3, 1, 3, 1), stride=2)
        yield x
        x = _stage(layers, x, "blocks.4", 256, depths=(3, 1, 3, 1, 3, 1), stride=2)
        yield x
        yield _stage(layers, x, "blocks.5", 512, depths=(1, 3, 1), stride=2)


def _stage(layers: Layers[Value], x: Value, name: str, width: int, *, depths: tuple[int, ...], stride: int) -> Value:
    """Apply bottleneck blocks, one for each temporal kernel in ``depths``. The first one has the in-plane stride."""
    for k, depth in enumerate(depths):
        block, step = f"{name}.res_blocks.{k}", stride if k == 0 else 1
        shortcut = x
        if k == 0:
            names = f"{block}.branch1_conv", f"{block}.branch1_norm"
            shortcut = layers.conv_bn(x, *names, 4 * width, centred(1, (1, step, step)))
        x = layers.relu(layers.add(shortcut, _bottleneck(layers, x, f"{block}.branch2", width, depth, step)))
    return x


def _bottleneck(layers: Layers[Value], x: Value, name: str, width: int, depth: int, stride: int) -> Value:
    x = layers.relu(layers.conv_bn(x, f"{name}.conv_a", f"{name}.norm_a", width, centred((depth, 1, 1))))
    window = centred((1, 3, 3), (1, stride, stride))
    x = layers.relu(layers.conv_bn(x, f"{name}.conv_b", f"{name}.norm_b", width, window))
    return layers.conv_bn(x, f"{name}.conv_c", f"{name}.norm_c", 4 * width, centred(1))
