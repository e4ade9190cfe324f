"""The two peers of benchmarks/fashion_mnist.py: timm's ViT in a plain PyTorch loop, and Hugging Face's Trainer.

Both take every number from vitlab's recipe, and vary images as it does: pad, cut at a random place, mirror. Images lie
in memory as arrays, so that neither decodes anything. How weights start, which GELU there is, and that Trainer spares
biases and norms the weight decay, is left as it is in each library.
"""

import tempfile
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

# torchvision's wheel registers operators for CUDA; beside a CPU torch it only imports once these two are declared.
LIBRARY = torch.library.Library("torchvision", "DEF")
LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification  # noqa: E402

from vitlab.datasets.array_files import FASHION_CLASSES, open_fashion_mnist  # noqa: E402
from vitlab.recipes import zoo  # noqa: E402
from vitlab.recipes.schema import Recipe  # noqa: E402
from vitlab.training.optimizers import learning_rate  # noqa: E402

EVALUATION_BATCH = 125  # divides 10,000: Trainer leaves out an incomplete batch of evaluation, too


@dataclass(frozen=True)
class Outcome:
    """What one run reached on the test images, and how many images it trained on."""

    top1: float
    images: int


class Clothes(Dataset):
    """Fashion-MNIST as normalised float32 images (3, 28, 28); training images are varied."""

    def __init__(self, split: str, recipe: Recipe) -> None:
        source = open_fashion_mnist(split)
        self.images_NHW = np.stack([source.pixels(index) for index in range(len(source))])
        self.labels = source.labels_N.tolist()
        augmentation, preprocessing = recipe.augmentation, recipe.preprocessing
        assert augmentation.crop == "pad"
        assert augmentation.flip
        self.pad = augmentation.pad if split == "train" else 0
        self.varies = split == "train"
        self.mean, self.std = preprocessing.mean[0], preprocessing.std[0]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image_HW = self.images_NHW[index]
        if self.varies:
            image_HW = self._varied(image_HW)
        # Normalised before it becomes three equal channels, which spares the peers two thirds of the work.
        grey_HW = torch.from_numpy(image_HW.copy()).float().div_(255).sub_(self.mean).div_(self.std)
        return grey_HW.expand(3, -1, -1), self.labels[index]

    def _varied(self, image_HW: np.ndarray) -> np.ndarray:
        height, width = image_HW.shape
        top, left = torch.randint(2 * self.pad + 1, (2,)).tolist()
        padded_HW = np.zeros((height + 2 * self.pad, width + 2 * self.pad), np.uint8)
        padded_HW[self.pad : self.pad + height, self.pad : self.pad + width] = image_HW
        cut_HW = padded_HW[top : top + height, left : left + width]
        return cut_HW[:, ::-1] if torch.rand(()) < 0.5 else cut_HW


class ForTrainer(Dataset):
    """The same images under the names that Hugging Face's Trainer wants."""

    def __init__(self, clothes: Clothes) -> None:
        self.clothes = clothes

    def __len__(self) -> int:
        return len(self.clothes)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        image_CHW, label = self.clothes[index]
        return {"pixel_values": image_CHW, "labels": label}


def train_timm(recipe: Recipe, workers: int) -> Outcome:
    """A plain loop around timm's VisionTransformer of the recipe's shape."""
    torch.manual_seed(recipe.seed)
    clothes = Clothes("train", recipe)
    model = timm_model(recipe)
    steps = recipe.total_steps(len(clothes))
    optimizer = torch.optim.AdamW(
        model.parameters(), recipe.optimizer.learning_rate, weight_decay=recipe.optimizer.weight_decay
    )
    loader = DataLoader(
        clothes, recipe.batch_size, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
    )
    step = 0
    model.train()
    while step < steps:
        for images_BCHW, labels_B in loader:
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe.schedule, recipe.optimizer.learning_rate, step, steps)
            logits_BK = model(images_BCHW)
            loss = F.cross_entropy(logits_BK, labels_B, label_smoothing=recipe.objective.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_norm)
            optimizer.step()
            if step % recipe.log_every == 0:
                print(f"step {step} loss {loss.item():.4f}", flush=True)
            if step == steps:
                break
    return Outcome(top1(model, recipe), steps * recipe.batch_size)


def timm_model(recipe: Recipe) -> VisionTransformer:
    """As a user of timm would build it: its own start, its own GELU."""
    config = zoo.configure(recipe.model.name, {**recipe.model.options, "image_size": recipe.model.image_size})
    return VisionTransformer(
        img_size=config.image_hw, patch_size=config.patch_hw, num_classes=len(FASHION_CLASSES), embed_dim=config.hidden,
        depth=config.layers, num_heads=config.heads, mlp_ratio=config.mlp / config.hidden,
    )  # fmt: skip


@torch.inference_mode()
def top1(model: nn.Module, recipe: Recipe) -> float:
    """Share of the test images that are named rightly."""
    model.eval()
    correct = total = 0
    for images_BCHW, labels_B in DataLoader(Clothes("test", recipe), EVALUATION_BATCH):
        correct += int((model(images_BCHW).argmax(-1) == labels_B).sum())
        total += len(labels_B)
    return correct / total


def train_transformers(recipe: Recipe, workers: int) -> Outcome:
    """Hugging Face's ViTForImageClassification of the recipe's shape under its Trainer."""
    clothes = Clothes("train", recipe)
    steps = recipe.total_steps(len(clothes))
    optimizer = recipe.optimizer
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, seed=recipe.seed, use_cpu=True, max_steps=steps,
            per_device_train_batch_size=recipe.batch_size, per_device_eval_batch_size=EVALUATION_BATCH,
            learning_rate=optimizer.learning_rate, weight_decay=optimizer.weight_decay,
            adam_beta1=optimizer.beta1, adam_beta2=optimizer.beta2, max_grad_norm=optimizer.clip_norm,
            lr_scheduler_type=recipe.schedule.decay, warmup_steps=recipe.schedule.warmup_steps,
            label_smoothing_factor=recipe.objective.label_smoothing, dataloader_drop_last=True,
            dataloader_num_workers=workers, dataloader_persistent_workers=workers > 0,
            logging_steps=recipe.log_every, save_strategy="no", eval_strategy="no", report_to=[], disable_tqdm=True,
        )  # fmt: skip
        torch.manual_seed(recipe.seed)
        trainer = Trainer(transformers_model(recipe), arguments, train_dataset=ForTrainer(clothes))
        trainer.train()
        answers = trainer.predict(ForTrainer(Clothes("test", recipe)))
    return Outcome(float((answers.predictions.argmax(-1) == answers.label_ids).mean()), steps * recipe.batch_size)


def transformers_model(recipe: Recipe) -> ViTForImageClassification:
    """As a user of transformers would build it: its own start, its own GELU; no dropout, as in the recipe."""
    config = zoo.configure(recipe.model.name, {**recipe.model.options, "image_size": recipe.model.image_size})
    return ViTForImageClassification(
        ViTConfig(
            image_size=config.image_hw[0], patch_size=config.patch_hw[0], hidden_size=config.hidden,
            num_hidden_layers=config.layers, num_attention_heads=config.heads, intermediate_size=config.mlp,
            hidden_dropout_prob=config.dropout, num_labels=len(FASHION_CLASSES),
        )
    )  # fmt: skip
