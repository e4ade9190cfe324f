"""Recipe and its sections: frozen, validated values; TOML in and out; `key.path=value` changes."""

import tomllib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from vitlab.errors import UserError, unknown_name
from vitlab.recipes.preprocessing import Augmentation, Interpolation, Resize
from vitlab.recipes.validation import one_line_of_recipe, print_renamed, renamed_assignments, renamed_values

OptionValue = bool | int | float | str | list[int]
Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A frozen piece of a recipe; keys that it does not have are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class ModelSpec(Section):
    """Which model: a name of the zoo and fields of its configuration that differ.

    Attributes:
        name: a name of the zoo, such as "ViT-B/16"; not used where weights are given (`init_from`).
        image_size: height and width of the input, or one number for both; None keeps that of the weights.
        options: fields of the configuration to set, such as {"layers": 6, "dropout": 0.1}.
    """

    name: str = "ViT-B/16"
    image_size: Positive | tuple[Positive, Positive] | None = None
    options: dict[str, OptionValue] = {}


class DataConfig(Section):
    """Which images, and what happens to those that cannot be read.

    Attributes:
        source: a data set's name, a folder, or a pattern of tar shards.
        share: of the training images of every class that is trained on (paper: Fig. 4); which ones they are is fixed,
            and a larger share holds all of a smaller one.
        bad_images: "refuse" ends training at an image that cannot be read; "skip" leaves it out and counts it, and puts
            nothing in its place.
        exclude: a list of training images to leave out, as `vitlab dedup` writes it.
        order: "global" shuffles over the whole data set; "shards" reads full shards in a shuffled order and shuffles
            within a few of them at a time, which object storage prefers.
        workers: decoding threads. None: one per processor, or 0 for in-memory images beside thread replicas.
    """

    source: str = ""
    share: float = Field(1.0, gt=0, le=1)
    bad_images: Literal["refuse", "skip"] = "refuse"
    exclude: str | None = None
    order: Literal["global", "shards"] = "global"
    workers: NotNegative | None = None


class PreprocessingConfig(Section):
    """How images are brought to the model's input size; None for mean and std keeps those of the weights."""

    resize: Resize = "square"
    crop: float = Field(1.0, gt=0, le=1)
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] | None = None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None


class OptimizerConfig(Section):
    """How weights move (paper: section 4.1, Tables 3 and 4).

    Attributes:
        kind: "adamw" is the paper's Adam with decoupled weight decay, on all parameters; "sgd" has momentum 0.9.
        learning_rate: the peak, reached at the end of the warm-up.
        decay_kernels_only: spare biases, norms, class token and tables of positions the decay, as big_vision does.
        clip_norm: largest global norm of the gradients; 0 does not clip.
    """

    kind: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    decay_kernels_only: bool = False
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    clip_norm: float = Field(1.0, ge=0)


class ScheduleConfig(Section):
    """The learning rate: a linear warm-up times a decay (paper: Tables 3 and 4).

    Attributes:
        decay: "staircase" multiplies by `factor` at every one of `milestones`, shares of the complete run, as
            BiT-HyperRule does.
        end_learning_rate: where linear and cosine end.
    """

    decay: Literal["linear", "cosine", "constant", "staircase"] = "cosine"
    warmup_steps: NotNegative = 0
    end_learning_rate: float = Field(0.0, ge=0)
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.3, 0.6, 0.9)
    factor: float = Field(0.1, gt=0, le=1)


class ObjectiveConfig(Section):
    """What is minimised.

    Attributes:
        loss: cross-entropy of a softmax, or of a sigmoid for every class, summed over the classes.
        label_smoothing: share of each target that is spread evenly over all classes.
        head_bias: where the biases of a new head start; -10 suits the sigmoid loss with many thousand classes.
    """

    loss: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    head_bias: float = 0.0


class ValidationConfig(Section):
    """What training is measured on.

    Attributes:
        share: of the training images, held out and measured on in place of the test images; 0 holds out none.
    """

    share: float = Field(0.0, ge=0, lt=1)


class EarlyStoppingConfig(Section):
    """When training ends before its last step.

    Attributes:
        patience: evaluations in a row without a better score on the held-out images (`validation.share`) after which
            training ends; the best weights are kept. 0 never ends early.
    """

    patience: NotNegative = 0


class CheckpointConfig(Section):
    """Which checkpoints stay.

    Attributes:
        keep: how many of the newest ones; the best one stays too, where images are held out (`validation.share`).
    """

    keep: Positive = 2


class ScaleConfig(Section):
    """How a run is carried out.

    Attributes:
        accumulation: microbatches that a batch is cut into, one after the other, to save memory; "auto" takes the
            fewest that fit.
        thread_replicas: replicas of the model in threads of one process, each of which learns from its share of a
            batch on its own cores; "auto" takes several on a processor, for a small ViT without dropout, and 1
            elsewhere.
        parallel: what several processes do: "ddp" has the complete model in each, "fsdp" shards weights, gradients
            and optimizer among them; "auto" is ddp where everything fits into half of a device's memory, else fsdp;
            "none" refuses more than one process.
        compile: "blocks" compiles every encoder block, "step" the complete forward pass.
        recompute: keep only the blocks' inputs and compute the rest again in the backward pass: a third more
            arithmetic for much less memory.
        precision: of matrix products; "auto" is bfloat16 on GPUs and float32 elsewhere; weights and optimizer are
            always float32. "fp8" needs torchao and a GPU that supports it.
    """

    accumulation: Positive | Literal["auto"] = 1
    thread_replicas: Positive | Literal["auto"] = "auto"
    parallel: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    compile: Literal["none", "blocks", "step"] = "none"
    recompute: bool = False
    precision: Literal["auto", "float32", "bfloat16", "fp8"] = "auto"


# Keys that a resumed run may change: they change rounding at most.
ELASTIC = frozenset(
    {
        "checkpoint.keep", "scale.accumulation", "scale.thread_replicas", "scale.parallel", "scale.compile",
        "scale.recompute",
    }
)  # fmt: skip


class Recipe(Section):
    """One complete run of training. Pretraining and fine-tuning differ only in their values.

    Attributes:
        steps: updates to make; exactly one of `steps` and `epochs` is given.
        epochs: passes over the training set.
        batch_size: images per update, over all devices.
        averaging: Polyak averaging's decay per step, 0 for none; the averaged weights are evaluated and saved.
        init_from: weights to start from (a run, a file, a folder); the head starts at zero.
        evaluate_every, checkpoint_every, log_every: steps between; 0 is only at the end.
        log: where the numbers of metrics.jsonl go as well.
    """

    name: str = "recipe"
    about: str = ""
    steps: Positive | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    batch_size: Positive = 128
    seed: NotNegative = 0
    averaging: float = Field(0.0, ge=0, lt=1)
    init_from: str | None = None
    evaluate_every: NotNegative = 0
    checkpoint_every: NotNegative = 200
    log_every: Positive = 10
    log: Literal["none", "tensorboard", "wandb"] = "none"
    model: ModelSpec = ModelSpec()
    data: DataConfig = DataConfig()
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    augmentation: Augmentation = Augmentation()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    validation: ValidationConfig = ValidationConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    scale: ScaleConfig = ScaleConfig()

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("exactly one of steps and epochs must be given")
        return self

    @model_validator(mode="after")
    def _patience_has_an_effect(self) -> Self:
        patience = self.early_stopping.patience
        if patience and not self.validation.share:
            raise UserError(
                f"early_stopping.patience is {patience}, but no images are held out to measure on: "
                "set validation.share, such as 0.1, or leave patience at 0"
            )
        if patience and not self.evaluate_every:
            raise UserError(
                f"early_stopping.patience is {patience}, but evaluate_every is 0, which measures at the end only: "
                "set evaluate_every, such as 500, or leave patience at 0"
            )
        return self

    def total_steps(self, images: int) -> int:
        """Updates of the complete run over a training set of `images` images."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * images / self.batch_size))


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML; keys without a value are left out, so that it reads back equal."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def from_toml(text: str, where: str) -> Recipe:
    """The recipe that a TOML text describes. `where` names the text in errors."""
    return from_values(_toml_values(text, where), where)


def from_stored_toml(text: str, where: str) -> Recipe:
    """The recipe of a run's recipe.toml, which an earlier version may have written; nothing is printed.

    Early stopping without held-out images, which earlier versions let pass without an effect, is left out.
    """
    values, renamed = renamed_values(_toml_values(text, where), where)
    validation = values.get("validation")
    is_held_out = isinstance(validation, dict) and validation.get("share")
    if "scale.patience" in renamed and not (is_held_out and values.get("evaluate_every")):
        del values["early_stopping"]
    return _validated(values, where)


def from_values(values: Mapping[str, Any], where: str) -> Recipe:
    """The recipe of nested `values`. `where` names them in errors.

    Keys of earlier versions are understood; a line on stderr names the key that replaces each.
    """
    values, renamed = renamed_values(values, where)
    print_renamed(renamed, where)
    return _validated(values, where)


def with_changes(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """The recipe after every `key.path=value`; values are read as TOML, and as plain text where they are not.

    Keys of earlier versions are understood as in `from_values`.
    """
    values = recipe.model_dump(mode="json")
    for assignment in current_assignments(assignments):
        path, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"--set {assignment}: write it as key.path=value, such as optimizer.learning_rate=1e-3")
        _assign(values, path.strip(), _toml_value(text.strip()))
    return _validated(values, "--set")


def current_assignments(assignments: Iterable[str]) -> list[str]:
    """`key.path=value` changes with every key of an earlier version replaced, which a line on stderr says."""
    current, renamed = renamed_assignments(assignments)
    print_renamed(renamed, "--set")
    return current


def key_paths() -> list[str]:
    """Every key of a recipe as a dotted path."""
    return [path for path in _leaf_paths(Recipe, "") if path]


def _assign(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    inside: Any = values
    for parent in parents:
        inside = inside.get(parent) if isinstance(inside, dict) else None
    free_form = parents == ["model", "options"]
    is_section = isinstance(inside, dict) and isinstance(inside.get(last), dict) and path != "model.options"
    if not isinstance(inside, dict) or (last not in inside and not free_form) or is_section:
        raise unknown_name("key", path, key_paths(), listing="`vitlab recipes show NAME` lists the keys of a recipe")
    inside[last] = value
    if path in ("steps", "epochs"):
        values["epochs" if path == "steps" else "steps"] = None


def _toml_values(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{where} is not valid TOML: {error}") from None


def _validated(values: Mapping[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise one_line_of_recipe(error, where, key_paths()) from None


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _leaf_paths(part: type[BaseModel], prefix: str) -> Iterable[str]:
    for name, field in part.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _leaf_paths(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
