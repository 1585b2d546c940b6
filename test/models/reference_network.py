"""The public reference's network, written anew as plain functions over its checkpoint's tensors.

Nothing here uses the package: padding is explicit, BatchNorm unfolded, channels three, one case at a time.
Facts from MClab's public code (models/model_3d.py, models/auxiliary.py) and the LUNA25 baseline's (models/model_3d.py).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

MIXED_4 = ("mixed_4b", "mixed_4c", "mixed_4d", "mixed_4e", "mixed_4f")


def pad_same(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Zeros, kernel − stride of them along each axis, the odd one at the far side."""
    pads = []
    for k, s in zip(reversed(kernel), reversed(stride), strict=True):
        total = max(k - s, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def unit(tensors: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = tensors[f"{name}.conv3d.weight"]
    x = F.conv3d(pad_same(x, tuple(weight.shape[2:]), (stride,) * 3), weight, stride=stride)
    norm = [tensors[f"{name}.batch3d.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    return F.relu(F.batch_norm(x, *norm, training=False, eps=1e-5))


def pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    return F.max_pool3d(pad_same(x, kernel, stride), kernel, stride)


def inception_block(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return torch.cat(
        [
            unit(tensors, f"{name}.branch_0", x),
            unit(tensors, f"{name}.branch_1.1", unit(tensors, f"{name}.branch_1.0", x)),
            unit(tensors, f"{name}.branch_2.1", unit(tensors, f"{name}.branch_2.0", x)),
            unit(tensors, f"{name}.branch_3.1", pool(x, (3, 3, 3), (1, 1, 1))),
        ],
        dim=1,
    )


def reference_feature_maps(tensors: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Stem, conv3d_2c, mixed_3c, mixed_4f, mixed_5c of (N, 3, D, H, W); names carry the prefix ``backbone.``."""
    t = {name.removeprefix("backbone."): value for name, value in tensors.items() if name.startswith("backbone.")}
    stem = unit(t, "conv3d_1a_7x7", x, stride=2)
    second = unit(t, "conv3d_2c_3x3", unit(t, "conv3d_2b_1x1", pool(stem, (1, 3, 3), (1, 2, 2))))
    third = inception_block(t, "mixed_3c", inception_block(t, "mixed_3b", pool(second, (1, 3, 3), (1, 2, 2))))
    fourth = pool(third, (3, 3, 3), (2, 2, 2))
    for name in MIXED_4:
        fourth = inception_block(t, name, fourth)
    fifth = inception_block(t, "mixed_5c", inception_block(t, "mixed_5b", pool(fourth, (2, 2, 2), (2, 2, 2))))
    return [stem, second, third, fourth, fifth]


def reference_logit(tensors: dict[str, Tensor], maps: list[Tensor]) -> Tensor:
    """Malignancy logits (N,) from the coarsest feature map."""
    pooled = maps[-1].mean(dim=(2, 3, 4))
    return F.linear(pooled, tensors["classifier_head.2.weight"], tensors["classifier_head.2.bias"]).squeeze(1)


def baseline_logit(tensors: dict[str, Tensor], patch: Tensor) -> Tensor:
    """The LUNA25 baseline's malignancy logits (N,) of patches (N, 3, 64, 64, 64), from tensors under its own names."""
    coarsest = reference_feature_maps({f"backbone.{name}": value for name, value in tensors.items()}, patch)[-1]
    windows = F.avg_pool3d(coarsest, kernel_size=2, stride=1)
    classifier = [tensors[f"conv3d_0c_1x1.conv3d.{part}"] for part in ("weight", "bias")]
    return F.conv3d(windows, *classifier).mean(dim=2).reshape(len(patch))


def reference_mask(tensors: dict[str, Tensor], maps: list[Tensor], size: tuple[int, int, int]) -> Tensor:
    """Mask logits (N, D, H, W) of the decoder ``aux_model``; ``size`` is the last upsampling's."""
    *finer, x = maps
    for stage in range(5):
        x = unit(tensors, f"aux_model.block{stage + 1}", x)
        target = finer[3 - stage].shape[2:] if stage < 4 else size
        x = F.interpolate(x, size=target, mode="trilinear", align_corners=False)
        if stage < 4:
            x = x + finer[3 - stage]
    weight, bias = tensors["aux_model.last_layer.weight"], tensors["aux_model.last_layer.bias"]
    return F.conv3d(x, weight, bias).squeeze(1)
