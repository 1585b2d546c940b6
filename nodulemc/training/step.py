"""One optimisation step: forward, loss, backward, Adam and the moving average, on one process or several."""

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nodulemc.models.channels_last import move_channels_last
from nodulemc.models.multitask import MultiTaskI3d
from nodulemc.models.upscaled_stem import PatchNetwork
from nodulemc.training.config import FINE_STAGES, TrainingConfig
from nodulemc.training.ema import ExponentialMovingAverage
from nodulemc.training.losses import differentiable_global_sum, known_cross_entropy, multitask_loss


def freeze_batch_norm(module: nn.Module) -> None:
    """Put every BatchNorm into eval mode and stop training its parameters.

    Source: MClab's public code, for backbones that start from Kinetics-400 weights.
    """
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.eval().requires_grad_(False)


def freeze_parts(network: MultiTaskI3d, parts: Iterable[str]) -> None:
    """Stop training the parameters of some of a network's parts, named as in a recipe's ``model.frozen``."""
    for part in parts:
        modules = network.backbone.fine_stages if part == FINE_STAGES else [network.get_submodule(part)]
        for module in modules:
            module.requires_grad_(False)


class TrainingStep:
    """A network with its optimizer and its moving average.

    Attributes:
        optimizer: Adam, as Accelerate wraps it.
        ema: The moving average.
    """

    def __init__(
        self, network: PatchNetwork, config: TrainingConfig, accelerator: Accelerator, *, undecided: bool = False
    ) -> None:
        """Move a network to the accelerator's device.

        Args:
            network: The network to train.
            config: The recipe.
            accelerator: The device, processes and precision.
            undecided: Whether labels may be NaN, see ``multitask_loss``.
        """
        on_cuda = accelerator.device.type == "cuda"
        move_channels_last(network, accelerator.device)
        self.ema = ExponentialMovingAverage(network, config.run.ema_decay)
        self._frozen = config.model.freezes_batch_norm
        self._frozen_fine = FINE_STAGES in config.model.frozen
        if not self._frozen and accelerator.num_processes > 1 and on_cuda:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        optimizer = torch.optim.Adam(
            [parameter for parameter in network.parameters() if parameter.requires_grad],
            lr=config.optimizer.learning_rate,
            betas=config.optimizer.betas,
            weight_decay=config.optimizer.weight_decay,
            fused=on_cuda,
        )
        self._model, self.optimizer = accelerator.prepare(network, optimizer)
        self._accelerator = accelerator
        self._undecided = undecided
        self._segmentation_weight = config.run.segmentation_weight
        self._dice = config.run.dice
        self._attribute_weight = config.run.attribute_weight
        self._global_sum = differentiable_global_sum(
            lambda tensor: accelerator.reduce(tensor, reduction="sum"), accelerator.num_processes
        )

    @property
    def network(self) -> PatchNetwork:
        """The trained network, without Accelerate's and torch.compile's wrapping."""
        network: PatchNetwork = self._accelerator.unwrap_model(self._model, keep_torch_compile=False)
        return network

    def prepare_to_train(self) -> None:
        """Set training mode, except for frozen BatchNorm."""
        self._model.train()
        if self._frozen:
            freeze_batch_norm(self.network.network.backbone)
        elif self._frozen_fine:
            for layer in self.network.network.backbone.fine_stages:
                freeze_batch_norm(layer)

    def __call__(
        self, images: Tensor, masks: Tensor, labels: Tensor, learning_rate: float, ratings: Tensor | None = None
    ) -> Tensor:
        """Learn from this process's share of one batch.

        Args:
            images: (N, 1, 64, 64, 64), values 0…1.
            masks: (N, 64, 64, 64), 0 or 1.
            labels: (N,), 0…1, NaN if undecided.
            learning_rate: Adam's learning rate.
            ratings: (N, A), 0…1, NaN if unknown. Only for a network with an attribute head.

        Returns:
            The loss over all processes, its cross-entropy, its Dice part and, with an attribute head, its attribute
                part: (3,) or (4,), on the device.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad()
        logits, mask_logits, *attributes = self._model(images)
        weight, global_sum = self._segmentation_weight, self._global_sum
        loss, *parts = multitask_loss(
            logits, mask_logits, labels, masks, weight, global_sum, dice=self._dice, undecided=self._undecided
        )
        for attribute_logits in attributes:
            if ratings is None:
                raise ValueError("an attribute head learns from ratings")
            parts.append(known_cross_entropy(attribute_logits, ratings, global_sum))
            loss = loss + self._attribute_weight * parts[-1]
        self._accelerator.backward(loss)
        self.optimizer.step()
        self.ema.update(self.network)
        losses: Tensor = self._accelerator.reduce(torch.stack([loss, *parts]).detach(), reduction="mean")
        return losses
