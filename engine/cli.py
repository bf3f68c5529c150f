"""From the arguments of a command to its objects: LightningCLI, a run folder, and the facts that data give tasks."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from pydoc import locate
from typing import Any, cast

import torch
from jsonargparse import set_parsing_settings
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.environments import SLURMEnvironment
from torch import distributed

from engine.arguments import DEFAULT, Arguments, allowed_imports
from engine.checkpoints import AtomicCheckpointIO, read_checkpoint
from engine.contract import Task
from engine.devices import Meeting, is_first, launched, layout, meeting, num_devices, together
from engine.doctor import Doctor
from engine.errors import Finding, UserError, gathering
from engine.explain import user_line
from engine.predictions import PredictionWriter
from engine.record import Record, checkpointing
from engine.report import print_differences
from engine.runs import folder_of, new_run
from engine.speed import NoProfiler, clip_unscaled, skip_idle_hooks, slow_precision, spare_lstms
from engine.watch import Watch

# What the data know and the task needs, to build the net among other things.
FACTS = (
    *("in_channels", "image_size", "num_classes", "class_names", "num_features", "num_outputs"),
    *("charset", "tokenizer", "source_tokenizer", "target_tokenizer"),
)

WITHOUT_DATA = ("predict", "export")  # verbs that need no data of the training
ALONE = ("predict", "check", "export")  # verbs of one process

FOLDER_OF_RUN = "TASKLIGHT_RUN"  # the first process of a run on several devices tells the others its folder by it


class Verbs(Trainer):
    """Lightning's trainer, with the verbs that it does not have; ``Command`` carries them out."""

    def check(self, model: LightningModule, datamodule: LightningDataModule, ckpt_path: str | None = None) -> None:
        """Look at the data without training; ``ckpt_path`` may stand in the config of a run, but is not read."""

    def export(
        self, model: LightningModule, datamodule: LightningDataModule | None = None, ckpt_path: str | None = None
    ) -> None:
        """Write the net of a checkpoint as ONNX, for programs without PyTorch.

        Args:
            model: The task.
            datamodule: Its data.
            ckpt_path: ``best`` or ``last`` of the newest run of the recipe, a run folder, or a checkpoint.
        """


class CLI(LightningCLI):
    """The task, its data and the trainer of one command.

    Args:
        arguments: The command.
    """

    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        self.folder: Path | None = None  # the run folder; None where a loose checkpoint is measured
        self.is_new = False  # whether this command has made the folder
        self.checkpoint: dict[str, Any] = {}
        self.findings: list[Finding] = []  # what reading the data has shown
        self.misfit = ""  # why check could not make the task for these data
        self.meeting = meeting()
        if self.meeting and arguments.verb == "fit":
            arguments.checkpoint = self.agreed(self.meeting, arguments.checkpoint)
        if arguments.checkpoint:
            self.checkpoint = read_checkpoint(arguments.checkpoint)
        set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=allowed_imports(arguments.argv))
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_class=Verbs,
            save_config_callback=None,  # written in before_instantiate_classes, into the run folder
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={
                "exit_on_error": False,
                "allow_abbrev": False,
                arguments.verb: {"default_config_files": [str(DEFAULT)]},
            },
        )

    @staticmethod
    def agreed(meeting: Meeting, checkpoint: Path | None) -> Path | None:
        """Return where all processes start: at the last checkpoint of the attempt before, if torchrun starts anew."""
        last = Path(meeting.recall("folder"), "checkpoints", "last.ckpt")
        if meeting.recall("folder") and last.is_file():
            checkpoint = last
        path = meeting.agree("checkpoint", str(checkpoint or ""))
        return Path(path) if path else None

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        unused = {"model", "dataloaders", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"}
        return {
            "fit": unused,
            "validate": unused | {"verbose"},
            "test": unused | {"verbose"},
            "predict": unused | {"return_predictions"},
            "check": unused,
            "export": unused,
        }

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        if subcommand != self.arguments.verb:
            return self.init_parser()  # nobody asks for its arguments; to make all of them takes longer
        return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--recipe", type=str, default="", help="Name of the folder below runs/ (default: the config's)"
        )
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=True,
            help="Whether fit measures the best checkpoint on the test part",
        )
        parser.add_argument(
            "--save_minutes", type=float, default=5.0, help="Minutes between two writings of last.ckpt within an epoch"
        )
        if self.arguments.verb == "predict":
            parser.add_argument("--input", type=list[str], default=[], help="Files and folders to predict")
            parser.add_argument("--prompt", type=list[str], default=[], help="Texts to go on with")
        for fact in FACTS:
            target = f"model.init_args.{fact}"
            parser.link_arguments("data", target, compute_fn=partial(self.fact, name=fact), apply_on="instantiate")

    def fact(self, data: LightningDataModule, name: str) -> Any:
        """Return what the data know; where there are no training data, the checkpoint does."""
        task = self.config[self.arguments.verb].model
        wanted = signature(cast(Callable, locate(task.class_path))).parameters.get(name)
        if wanted is None:
            return None  # the link is dropped
        if self.arguments.verb in WITHOUT_DATA:
            return self.checkpoint["hyper_parameters"][name]
        if not hasattr(type(data), name) and not hasattr(data, name):
            if wanted.default is not Parameter.empty:  # the task can do without
                return wanted.default
            raise UserError(f"{task.class_path} needs {name!r}, which {type(data).__name__} does not know")
        value = getattr(data, name)
        trained = self.checkpoint.get("hyper_parameters", {}).get(name, value)
        if trained != value:
            there, here = (str(thing)[:80] for thing in (trained, value))  # tokenizers are long
            raise UserError(f"the checkpoint {self.arguments.checkpoint} has {name} = {there}, the data {here}")
        return value

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(self.arguments.argv)

    def before_instantiate_classes(self) -> None:
        config = self.config[self.arguments.verb]
        torch.set_flush_denormal(True)  # tiny numbers slow a CPU down tenfold
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision("high")
        else:  # optimizers look for a GPU at every step, in Lightning's way for 0.2 ms
            os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
        for fact in FACTS:
            if config.model.init_args.get(fact) is not None:
                raise UserError(f"model.{fact} comes from the data and cannot be set")
        settings = self._parser(self.arguments.verb).dump(config, skip_unset=False)
        if self.arguments.checkpoint:
            trained = self.checkpoint["hyper_parameters"].get("_class_path")
            if trained != config.model.class_path:
                raise UserError(
                    f"the checkpoint {self.arguments.checkpoint} is of {trained}, not {config.model.class_path}"
                )
            config.ckpt_path = str(self.arguments.checkpoint)
            self.folder = folder_of(self.arguments.checkpoint)
        if self.arguments.verb != "fit":
            config.trainer.logger = False
            return
        if config.trainer.enable_checkpointing is False:
            raise UserError("every run keeps its best and its last checkpoint: leave out trainer.enable_checkpointing")
        self.settings = settings
        if self.folder:
            print_differences((self.folder / "config.yaml").read_text(), self.settings)
        elif config.trainer.fast_dev_run:
            self.scratch = tempfile.TemporaryDirectory()
            self.folder = Path(self.scratch.name)  # nothing of it is kept
        elif FOLDER_OF_RUN in os.environ:
            self.folder = Path(os.environ[FOLDER_OF_RUN])
        else:
            self.folder = self.new_folder()
        if self.meeting:
            self.meeting.keep("folder", str(self.folder))
        loggers = config.trainer.logger if isinstance(config.trainer.logger, list) else [config.trainer.logger]
        for logger in loggers:
            if "save_dir" in getattr(logger, "init_args", {}):
                logger.init_args.save_dir = str(self.folder)

    def new_folder(self) -> Path:
        """Return a new run folder, the same in all processes, or that of an attempt which came to no checkpoint."""
        folder = self.meeting.recall("folder") if self.meeting else ""
        if not folder and (is_first() or not self.meeting):
            folder = str(new_run(self.arguments.recipe))
            self.is_new = True
        if self.meeting:
            folder = self.meeting.agree("folder", folder)
        if not Path(folder).is_dir():
            raise UserError(
                f"{folder}, which the first process has made, is not on this machine: all machines need the same "
                f"working directory, on a disk that they share"
            )
        return Path(folder)

    def instantiate_classes(self) -> None:
        if self.arguments.verb == "check":
            self.instantiate_to_check()
            return
        try:
            with gathering(faults=False) as self.findings:
                super().instantiate_classes()
                # Convolutions are often faster in this order, on CPUs and on GPUs in half precision.
                self.model.to(memory_format=torch.channels_last)
                clip_unscaled(self.trainer.precision_plugin)
                skip_idle_hooks(self.trainer, self.model)
                if slow_precision(self.trainer.precision, self.trainer.strategy.root_device):
                    spare_lstms(self.model)
                if self.arguments.verb not in WITHOUT_DATA:
                    self.datamodule.prepare_data()
        except (Exception, KeyboardInterrupt):
            self.forget()
            raise

    def instantiate_to_check(self) -> None:
        """Make data, task and trainer; the data, and a plain trainer, also where no task can be made for them."""
        with gathering() as self.findings:
            try:
                super().instantiate_classes()
            except Exception as error:
                line = user_line(error, self.arguments.argv)
                if line is None and not any(finding.broken for finding in self.findings):
                    raise
                data = self.config.check.data
                self.datamodule = cast(Callable, locate(data.class_path))(**data.init_args)
                self.misfit = line or "what is broken leaves too little"
                self.model, self.trainer = None, Verbs(logger=False, enable_checkpointing=False)
                self.config_init = self.config

    def forget(self) -> None:
        """Leave nothing behind of a run in which nothing has been trained."""
        if self.is_new and self.folder:
            if self.meeting:
                self.meeting.keep("folder", "")
            shutil.rmtree(self.folder)
            with contextlib.suppress(OSError):  # there are other runs
                self.folder.parent.rmdir()
                self.folder.parent.parent.rmdir()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        kwargs["default_root_dir"] = str(self.folder or Path.cwd())
        trainer = self._get(self.config_init, "trainer")
        configured = trainer.callbacks or []
        is_fit = self.arguments.verb == "fit"
        devices, machines = layout(trainer.accelerator, trainer.devices, trainer.num_nodes if is_fit else 1)
        if self.arguments.verb in ALONE:
            devices = 1  # files are written by one
            if launched() not in (None, (1, 1)):
                raise UserError(f"{self.arguments.verb} runs in one process: start it without torchrun or srun")
        if trainer.strategy == "auto" or not is_fit:  # a checkpoint is the same whatever strategy has made it
            several = num_devices(trainer.accelerator, devices) * machines > 1
            kwargs["strategy"] = together() if several else "auto"
        kwargs |= {"devices": devices, "num_nodes": machines}
        kwargs["use_distributed_sampler"] = False  # ours share the work themselves
        kwargs["profiler"] = trainer.profiler or NoProfiler()
        if self.arguments.verb == "export":
            kwargs |= {"accelerator": "cpu", "precision": "32-true"}
        plugins = trainer.plugins or []
        if launched() and not distributed.is_torchelastic_launched():
            plugins = [*plugins, SLURMEnvironment(auto_requeue=False)]  # Watch takes care of SLURM's signals
        kwargs["plugins"] = plugins
        if is_fit and self.folder:
            steps = trainer.log_every_n_steps or 50  # Lightning's own default
            self.record = Record(steps)
            self.best, last = checkpointing(self.folder, cast(Task, self.model))
            self.watch = Watch(self.folder / "checkpoints" / "last.ckpt", self.config.fit.save_minutes, steps)
            self.doctor = Doctor(steps)
            rates = [LearningRateMonitor()] if trainer.logger else []
            kwargs["callbacks"] = [self.doctor, *configured, *rates, self.record, self.watch, self.best, last]
            kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        else:
            kwargs["enable_checkpointing"] = False
        if self.arguments.verb == "predict" and self.arguments.checkpoint:
            checkpoint = self.arguments.checkpoint
            alone = checkpoint.with_name(f"{checkpoint.stem}_predictions")
            folder = self.folder / "predictions" if self.folder else alone
            self.writer = PredictionWriter(folder, f"{self.arguments.recipe}: {checkpoint}")
            kwargs["callbacks"] = [*configured, self.writer]
        return super().instantiate_trainer(**kwargs)
