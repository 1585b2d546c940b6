"""A convolution, its bias and its ReLU in one kernel, for inference with folded BatchNorm."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nodulemc.errors import out_of_memory
from nodulemc.models.backbone import Triple


class Fusible(nn.Module):
    """A module that applies ``conv3d``, ``batch3d`` and a ReLU.

    Attributes:
        fused: Whether it does so in one kernel, see ``fuse``.
    """

    conv3d: nn.Conv3d
    batch3d: nn.Module
    fused = False

    def unit(self, x: Tensor, weight: Tensor, stride: Triple, padding: Triple) -> Tensor:
        """Apply a convolution with this weight, BatchNorm and ReLU to (N, C, D, H, W)."""
        bias = self.conv3d.bias
        if self.fused and bias is not None:
            try:
                return convolution_relu(x, weight, bias, stride, padding)
            except RuntimeError as error:
                if out_of_memory(error):
                    raise
                # cuDNN has no such kernel for this shape, or the device is no NVIDIA GPU.
                self.fused = False
        x = F.conv3d(x, weight, bias, stride, padding)
        return F.relu(self.batch3d(x), inplace=True)


def fuse(network: nn.Module, fused: bool) -> None:
    """Let a network's folded units use one kernel each or, if ``fused`` is false, PyTorch's usual kernels."""
    for module in network.modules():
        if isinstance(module, Fusible):
            module.fused = fused and isinstance(module.batch3d, nn.Identity)


def convolution_relu(x: Tensor, weight: Tensor, bias: Tensor, stride: Triple, padding: Triple) -> Tensor:
    """Return ``F.relu(F.conv3d(x, weight, bias, stride, padding))``, without gradients.

    Raises:
        RuntimeError: cuDNN has no such kernel.
    """
    if weight[0, 0].numel() > 1 or stride != (1, 1, 1):
        return torch.cudnn_convolution_relu(x, weight, bias, stride, padding, (1, 1, 1), 1)
    # A matrix product, to which cuBLAS adds bias and ReLU.
    voxels = x.permute(0, 2, 3, 4, 1)
    rows = torch._addmm_activation(bias, voxels.flatten(0, 3), weight.flatten(1).t())
    outputs: Tensor = rows.unflatten(0, voxels.shape[:4])
    return outputs.permute(0, 4, 1, 2, 3)
