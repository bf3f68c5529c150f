"""Data-free knowledge distillation: a student learns from a teacher on pictures that a generator makes up for it."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, instantiate_module
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MetricCollection
from torchvision.transforms.v2 import Normalize

from engine.checkpoints import read_best
from engine.errors import UserError
from engine.pictures import grid, picture_of, show
from engine.schedules import WarmupCosine, scheduled
from engine.turns import follow_schedules, in_turns, minimize
from nets.cnn import CNN
from tasks.class_metrics import classification_metrics, report
from tasks.classification import ClassificationTask
from tasks.distillation_losses import difference, entropy_loss, observed, one_hot_loss
from tasks.judges import pictures_of, taught

SHOWN = 10  # generated pictures in a row
ASKED = 200  # generated pictures on which student and teacher are compared
CONTROL_STEPS = 500  # at most, of the students that are taught on noise and on the data
BATCH = 64  # pictures that those see at a time


class DataFreeDistillationTask(LightningModule):
    """A student that comes to answer like a teacher, without any picture that the teacher was taught with.

    The student minimizes its difference from the teacher on generated pictures; the generator minimizes a weighted sum
    of what makes pictures useful. Of the training data only the number of pictures is used, for an epoch's length; what
    is held out is measured, but chooses nothing: the last checkpoint is the best. Measured are accuracy (top-1, top-5,
    of every class), confusion and calibration of the student, and its agreement with the teacher on generated pictures.

    Args:
        net: Student, from pictures to class logits (B, num_classes).
        generator: Network from latent vectors (B, latent_dim) to pictures (B, in_channels, H, W) in [-1, 1]; made for a
            length of the vector, channels and a size.
        in_channels: Channels of a picture.
        image_size: Height and width of a picture.
        num_classes: Number of classes.
        class_names: Names of the classes.
        optimizer: Optimizer of the student's parameters.
        optimizer_g: Optimizer of the generator's parameters.
        teacher: Checkpoint or run folder of a classification of such pictures. Without one, a ``CNN`` is taught on the
            training part first, once for a data set.
        teacher_width: Width of that ``CNN``.
        teacher_steps: Batches of 64 that it is taught with.
        latent_dim: Length of the latent vector.
        loss: Difference of student and teacher: ``l1`` of the logits (DFAD) or ``kl`` divergence of the answers (DAFL).
        one_hot: Weight of how unsure the teacher is of a picture (DAFL).
        entropy: Weight of how unequal the classes of a batch are (DAFL).
        activation: Weight of how weak the teacher's last features are (DAFL).
        batch_norm: Weight of how far a batch is from the teacher's running means and variances (DeepInversion).
        adversarial: Weight of how well the student does already (DFAD).
        steps_net: Batches that the student learns from for every one of the generator.
        clip: Largest norm of a net's gradients; 0 for no limit.
        accumulate: Batches whose gradients make a step.
        scheduler: Learning rate schedule of both.
    """

    primary = "accuracy"
    perfect = 1.0
    monitor = None  # held-out data may not choose
    net: Any
    teacher: Any
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: Callable[[int, int], nn.Module],
        generator: Callable[[int, int, int], nn.Module],
        in_channels: int,
        image_size: int,
        num_classes: int,
        class_names: list[str],
        optimizer: OptimizerCallable,
        optimizer_g: OptimizerCallable,
        teacher: str | None = None,
        teacher_width: int = 16,
        teacher_steps: int = 800,
        latent_dim: int = 64,
        loss: Literal["l1", "kl"] = "l1",
        one_hot: float = 1.0,
        entropy: float = 5.0,
        activation: float = 0.0,
        batch_norm: float = 10.0,
        adversarial: float = 0.3,
        steps_net: int = 2,
        clip: float = 0.0,
        accumulate: int = 1,
        scheduler: LRSchedulerCallable = WarmupCosine,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        least = {"latent_dim": latent_dim, "steps_net": steps_net, "accumulate": accumulate}
        for name, value in {**least, "teacher_width": teacher_width, "teacher_steps": teacher_steps}.items():
            if value < 1:
                raise UserError(f"model.{name} is {value}; it must be 1 or more")
        self.fresh_net = partial(net, in_channels, num_classes)
        self.net = self.fresh_net()
        try:
            self.generator = generator(latent_dim, in_channels, image_size)
        except ValueError as error:  # pictures of a size that it cannot make
            raise UserError(str(error)) from error
        self.fresh_teacher = partial(CNN, in_channels, num_classes, teacher_width)
        self.teacher_from, self.teacher_steps = teacher, teacher_steps
        self.teacher_facts: dict[str, Any] | None = None  # the settings of a teacher that came from a checkpoint
        self.teacher = self.fresh_teacher().requires_grad_(False).eval()
        self.class_names, self.latent_dim, self.loss = class_names, latent_dim, loss
        self.weights = {"one_hot": one_hot, "entropy": entropy, "activation": activation}
        self.weights |= {"batch_norm": batch_norm, "adversarial": adversarial}
        self.steps_net, self.clip, self.accumulate = steps_net, clip, accumulate
        self.optimizer, self.optimizer_g, self.scheduler = optimizer, optimizer_g, scheduler
        self.register_buffer("mean", torch.zeros(in_channels))  # by which the teacher standardizes, and so the student
        self.register_buffer("std", torch.ones(in_channels))
        self.val_metrics = classification_metrics(num_classes)
        self.test_metrics = classification_metrics(num_classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) in [0, 1] to the student's class logits (B, num_classes)."""
        return self.net(self._standardized(pictures))

    def setup(self, stage: str) -> None:
        if stage != "fit" or self.trainer.ckpt_path:  # a checkpoint brings the teacher along
            return
        if self.teacher_from:
            self._take_teacher(self.teacher_from)
        else:
            data: Any = getattr(self.trainer, "datamodule", None)
            mean, std = data.statistics
            self.mean.copy_(mean)
            self.std.copy_(std.clamp(min=1e-6))
            standardize = Normalize(self.mean.tolist(), self.std.tolist())
            known: Any = taught(
                lambda: nn.Sequential(standardize, self.fresh_teacher()),
                data,
                len(self.class_names),
                self.teacher_steps,
                self.trainer.strategy.root_device,
            )
            self.teacher.load_state_dict(known[1].state_dict())

    def _take_teacher(self, source: str) -> None:
        """Take net and standardization of a classification's checkpoint.

        Raises:
            UserError: It is of another task, or of other pictures or classes.
        """
        checkpoint = read_best(source, "model.teacher")
        facts, state = checkpoint["hyper_parameters"], checkpoint["state_dict"]
        kind = f"{ClassificationTask.__module__}.{ClassificationTask.__name__}"
        if facts.get("_class_path") != kind:
            raise UserError(f"model.teacher: {source} is of {facts.get('_class_path')}; a teacher is of {kind}")
        for name in ("in_channels", "num_classes", "class_names"):
            if facts[name] != self.hparams[name]:
                there, here = facts[name], self.hparams[name]
                raise UserError(f"model.teacher: {source} has {name} = {there}, the data {here}")
        self._build_teacher(facts)
        self.teacher.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        self.mean.copy_(state["mean"])
        self.std.copy_(state["std"])

    def _build_teacher(self, facts: dict[str, Any]) -> None:
        """Build the net of a classification with these hyperparameters."""
        known = {
            "_class_path",
            *signature(ClassificationTask).parameters,
        }  # a checkpoint has what other tasks need, too
        task: Any = instantiate_module(ClassificationTask, {k: v for k, v in facts.items() if k in known})
        self.teacher = task.net.requires_grad_(False).eval()
        self.teacher.to(self.device).to(memory_format=torch.channels_last)
        self.teacher_facts = facts

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["teacher"] = self.teacher_facts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint["teacher"]:  # so its own file need not be there any more
            self._build_teacher(checkpoint["teacher"])

    def train(self, mode: bool = True) -> "DataFreeDistillationTask":
        super().train(mode)
        self.teacher.eval()  # else batch norm would go on averaging
        return self

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        optimizer, optimizer_g = in_turns(self)
        of_generator = (self.global_step + 1) % self.steps_net == 0
        with torch.set_grad_enabled(of_generator):
            pictures = self._generated(torch.randn(len(batch["image"]), self.latent_dim, device=self.device))
            answers, features, distance = observed(self.teacher, self._standardized(pictures))
        said = self(pictures).float()
        outputs = {}

        # Generator: pictures that the teacher is sure of, of all its classes, as it has seen them, and hard to learn.
        if of_generator:
            terms = {
                "one_hot": one_hot_loss(answers),
                "entropy": entropy_loss(answers),
                "activation": -features.abs().mean(),
                "batch_norm": distance,
                "adversarial": -difference(self.loss, said, answers),
            }
            loss_g = torch.stack([weight * terms[name] for name, weight in self.weights.items() if weight]).sum()
            minimize(self, optimizer_g, loss_g, batch_idx, self.accumulate, keep_graph=True)
            outputs = {name: term.detach() for name, term in terms.items() if self.weights[name]}

        # Student: what the teacher says of the same pictures.
        loss = difference(self.loss, said, answers.detach())
        minimize(self, optimizer, loss, batch_idx, self.accumulate)
        follow_schedules(self)
        return {"loss": loss.detach(), **outputs}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.clip:
            self.clip_gradients(optimizer, self.clip)

    def _generated(self, z: Tensor) -> Tensor:
        """Return pictures (B, in_channels, H, W) in [0, 1] for latent vectors (B, latent_dim)."""
        return self.generator(z) / 2 + 0.5

    def _standardized(self, pictures: Tensor) -> Tensor:
        """Return pictures (B, in_channels, H, W) in [0, 1] as the teacher expects them."""
        return (pictures - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.val_metrics.update(self(batch["image"]).float().softmax(1), batch["label"])

    def on_validation_epoch_end(self) -> None:
        self._report("val", self.val_metrics)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.test_metrics.update(self(batch["image"]).float().softmax(1), batch["label"])

    def on_test_epoch_end(self) -> None:
        self._report("test", self.test_metrics)

    def _report(self, stage: str, metrics: MetricCollection) -> None:
        """Log what was measured and the agreement on generated pictures; show some of these with what is said."""
        report(self, stage, metrics)
        z = torch.randn(ASKED, self.latent_dim, generator=torch.Generator().manual_seed(0)).to(self.device)
        pictures = self._generated(z).float()
        answers, said = (net(self._standardized(pictures)).argmax(1) for net in (self.teacher, self.net))
        self.log(f"{stage}/agreement", (answers == said).float().mean(), sync_dist=True)
        names = [(self.class_names[a], self.class_names[b]) for a, b in zip(answers[:SHOWN], said[:SHOWN], strict=True)]
        captions = [right if right == name else f"{right}, student: {name}" for right, name in names]
        shown = [picture_of(picture) for picture in pictures[:SHOWN].cpu()]
        show(self, f"{stage}_generated", grid({"generated": shown}, captions))

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return for a picture its ``path``, ``input``, ``class``, ``probability`` and the next likely ``others``."""
        probabilities = self(batch["image"]).float().softmax(1).cpu()
        best, *others = probabilities[0].argsort(descending=True)[:4].tolist()
        named = {c: f"{probabilities[0, c]:.4f}" for c in (best, *others)}
        return [
            {
                "path": batch["path"][0],
                "input": picture_of(batch["image"][0].cpu()),
                "class": self.class_names[best],
                "probability": named[best],
                "others": ", ".join(f"{self.class_names[c]} {named[c]}" for c in others),
            }
        ]

    def example(self, datamodule: Any) -> dict[str, tuple[str, Tensor]]:
        """Return two pictures."""
        side = self.hparams["image_size"]
        return {"pictures": ("BCHW", torch.rand(2, self.hparams["in_channels"], side, side))}

    def baseline(self, datamodule: Any) -> dict[str, float]:
        """Return the accuracy of a student taught on noise, every brightness as likely as any other."""
        shape = (BATCH, self.hparams["in_channels"], self.hparams["image_size"], self.hparams["image_size"])
        return self._evaluate(datamodule, self._control(partial(torch.rand, shape)))

    def references(self, datamodule: Any) -> dict[str, dict[str, float]]:
        """Return the accuracies of the teacher, and of a student that it taught on the training pictures."""
        pictures, _ = pictures_of(datamodule, "train")

        def some(generator: torch.Generator) -> Tensor:
            return pictures[torch.randint(len(pictures), (BATCH,), generator=generator)] / 255

        return {
            "teacher": self._evaluate(datamodule, self.teacher),
            "student taught on the data": self._evaluate(datamodule, self._control(some)),
        }

    def _control(self, draw: Callable[..., Tensor]) -> nn.Module:
        """Return another student, taught on pictures (BATCH, C, H, W) in [0, 1] that are drawn with a ``generator``.

        It makes as many steps as the student has made, but at most ``CONTROL_STEPS``: more hardly change it.
        """
        steps, generator = min(self.trainer.global_step, CONTROL_STEPS), torch.Generator().manual_seed(0)
        with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(0)
            net = self.fresh_net().to(self.device).to(memory_format=torch.channels_last)
            optimizer = self.optimizer(net.parameters())
            fading = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, max(1, steps))
            for _ in range(steps):
                pictures = self._standardized(draw(generator=generator).to(self.device))
                with torch.no_grad():
                    answers = self.teacher(pictures)
                optimizer.zero_grad()
                difference(self.loss, net(pictures), answers).backward()
                optimizer.step()
                fading.step()
        return net.eval()

    @torch.no_grad()
    def _evaluate(self, datamodule: Any, net: nn.Module) -> dict[str, float]:
        """Measure a net on the test part."""
        metrics = classification_metrics(len(self.class_names)).to(self.device)
        for batch in datamodule.test_dataloader():
            batch = datamodule.on_after_batch_transfer(batch, 0)
            logits = net(self._standardized(batch["image"].to(self.device)))
            metrics.update(logits.softmax(1), batch["label"].to(self.device))
        values = metrics.compute()
        names = ("accuracy", "top5_accuracy")
        return {f"test/{name}": float(values[name]) for name in names if name in values}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizers = [self.optimizer(self.net.parameters()), self.optimizer_g(self.generator.parameters())]
        return [scheduled(self.trainer, optimizer, self.scheduler(optimizer)) for optimizer in optimizers]
