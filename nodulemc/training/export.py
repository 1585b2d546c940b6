"""Writing an ensemble folder and its model card from trained seeds."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml

from nodulemc.ensemble.manifest import EnsembleManifest
from nodulemc.ensemble.trained_cases import FILE_NAME as CASES_NAME
from nodulemc.ensemble.trained_cases import TrainedCase
from nodulemc.ensemble.writer import MemberWeights, write_ensemble
from nodulemc.models.tensor_shapes import DECODER_PREFIX
from nodulemc.training.config import TrainingConfig
from nodulemc.training.trainer import TrainedSeed, TrainingData
from nodulemc.util.files import write_atomically
from nodulemc.util.text import counted

_COLUMNS = {
    "validation_auc": "AUC",
    "validation_cross_entropy": "cross-entropy",
    "validation_dice": "Dice",
    "train_loss": "training loss",
}


@dataclass(frozen=True)
class DataSummary:
    """The number of samples that a seed had on each side, for the model card."""

    train: int
    train_malignant: int
    validation: int
    validation_malignant: int
    train_undecided: int = 0
    validation_undecided: int = 0

    @classmethod
    def of(cls, data: TrainingData) -> "DataSummary":
        """Count the samples."""
        train, validation = (Counter(data.labels[k] for k in side) for side in (data.train, data.validation))
        return cls(train.total(), train[1], validation.total(), validation[1], train[None], validation[None])


def export_ensemble(
    folder: Path,
    seeds: Sequence[TrainedSeed],
    config: TrainingConfig,
    data: Sequence[DataSummary],
    *,
    decoder: bool,
    cases: Sequence[frozenset[TrainedCase]] | None = None,
    fold: int | None = None,
) -> EnsembleManifest:
    """Write the seeds' averaged weights in half precision, their training cases, and ``MODEL_CARD.md``.

    Args:
        folder: Made if it does not exist. An ensemble already there is replaced.
        seeds: The finished runs.
        config: Their recipe.
        data: The summary of their data: one for all seeds, or one each.
        decoder: Whether to keep the decoders, for masks.
        cases: The training cases of each seed, with those of the ensemble that it started from. None if they are not
            known.
        fold: The fold used for validation. None for a split without folds.

    Raises:
        ConfigError: the recipe does not state the training data of the weights, or their licence.
        EnsembleError: the weights are not finite in half precision.
        FileError: the folder cannot be written.
    """
    config.card.require(folder)
    architecture = config.model.architecture
    if not decoder:
        architecture = replace(architecture, decoder_widths=None)
    own_cases: Sequence[frozenset[TrainedCase] | None] = cases or [None] * len(seeds)
    members = [
        MemberWeights(
            f"seed_{trained.seed}",
            architecture,
            {k: v for k, v in trained.state_dict.items() if decoder or not k.startswith(DECODER_PREFIX)},
            seed=trained.seed,
            fold=fold,
            cases=own,
        )
        for trained, own in zip(seeds, own_cases, strict=True)
    ]
    card = config.card
    manifest = write_ensemble(folder, members, trained_on=card.trained_on, licence=card.licence, dtype=torch.float16)
    text = _model_card(seeds, config, data, manifest, frozenset().union(*cases) if cases else None)
    write_atomically(folder / "MODEL_CARD.md", text.encode())
    return manifest


def _model_card(
    seeds: Sequence[TrainedSeed],
    config: TrainingConfig,
    data: Sequence[DataSummary],
    manifest: EnsembleManifest,
    cases: frozenset[TrainedCase] | None,
) -> str:
    header = "| seed | epochs | " + " | ".join(_COLUMNS.values()) + " |"
    rows = [_metrics_row(trained) for trained in seeds]
    start = "random weights"
    if config.model.kinetics:
        start = f"Kinetics-400 weights, BatchNorm of the backbone {config.model.kinetics_batch_norm}"
    elif config.model.start_from:
        start = "an ensemble's weights of the same seeds, or of its only one, see the recipe"
    decoder = "with its segmentation decoder" if manifest.members[0].architecture.decoder_widths else "without decoder"
    return "\n".join(
        [
            "# Model card",
            "",
            "Malignancy probability of a lung nodule in a low-dose chest CT: multi-task I3D networks, one per seed, "
            "voting softly. For research; not a medical device.",
            "",
            "## Weights",
            "",
            f"- Trained on: {manifest.trained_on}",
            f"- Licence: {manifest.licence}",
            f"- Started from: {start}",
            f"- Code: git revision {manifest.git_revision or 'unknown'}",
            f"- Stored: moving averages after the last epoch, in half precision, {decoder}",
            f"- Largest difference from fp32 on probe patches: {manifest.deviations}",
            "",
            "## Data",
            "",
            *_data_tables(seeds, data),
            *(_cases(cases, config) if cases else []),
            "## Metrics",
            "",
            "Of the moving average on the validation nodules after the last epoch; no epoch was chosen by them. "
            "Cross-entropy is in nats, Dice the mean over nodules. Without validation nodules there is only the "
            "training loss.",
            "",
            header,
            "|" + "---|" * (len(_COLUMNS) + 2),
            *rows,
            "",
            *_attribute_lines(seeds, config.model.attributes),
            "## Recipe",
            "",
            "```yaml",
            yaml.safe_dump(config.to_dict(), sort_keys=False, default_flow_style=None).rstrip(),
            "```",
            "",
        ]
    )


def _cases(cases: frozenset[TrainedCase], config: TrainingConfig) -> list[str]:
    """Return the card's lines on the training cases."""
    patients = counted(len({case.patient for case in cases}), "patient")
    start = ", those of the ensemble that was started from included as far as it lists them"
    what = f"{counted(len(cases), 'scan')} of {patients}{start if config.model.start_from else ''}"
    return [f"Trained on: {what}: see `{CASES_NAME}`. Validation scans are not in it.", ""]


def _metrics_row(trained: TrainedSeed) -> str:
    last = trained.history[-1]
    cells = [f"{last[column]:.4f}" if column in last else "–" for column in _COLUMNS]
    return f"| {trained.seed} | {len(trained.history)} | {' | '.join(cells)} |"


def _data_tables(seeds: Sequence[TrainedSeed], data: Sequence[DataSummary]) -> list[str]:
    """Return the lines of a table of the numbers of nodules; of one for each seed if the seeds had different data."""
    lines = []
    for trained, summary in zip(seeds, data, strict=False):
        lines += [f"Seed {trained.seed}:", ""] if len(data) > 1 else []
        columns = [
            ("", "training", "validation"),
            ("nodules", summary.train, summary.validation),
            ("malignant", summary.train_malignant, summary.validation_malignant),
            ("undecided", summary.train_undecided, summary.validation_undecided),
        ]
        lines += [*_table(columns if any(columns[-1][1:]) else columns[:-1]), ""]
    return lines


def _table(columns: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table. Each column starts with its name."""
    header, *rows = (f"| {' | '.join(map(str, cells))} |" for cells in zip(*columns, strict=True))
    return [header, "|" + "---|" * len(columns), *rows]


def _attribute_lines(seeds: Sequence[TrainedSeed], attributes: Sequence[str]) -> list[str]:
    """Return the lines of a table of the attributes' validation; empty without attributes or validation."""
    validated = [trained for trained in seeds if "validation_auc" in trained.history[-1]]
    if not attributes or not validated:
        return []
    columns = [["attribute", *attributes]]
    for trained in validated:
        for figure, words in (("spearman", "rank correlation"), ("mae", "mean error")):
            values = [f"{trained.history[-1][f'validation_{name}_{figure}']:.3f}" for name in attributes]
            columns.append([f"{trained.seed}: {words}", *values])
    words = "The attributes' rank correlation and mean absolute error with the readers' mean ratings, on their scale:"
    return [words, "", *_table(columns), ""]
