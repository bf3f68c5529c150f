"""The command line: LightningCLI with verbs that go on where Lightning's stop."""

import logging
import os
import shlex
import shutil
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from torch.utils.data import DataLoader, Dataset

from engine.arguments import DEFAULT, Arguments, allowed_imports, arrange
from engine.checkpoints import AtomicCheckpointIO, read_checkpoint
from engine.contract import Predictable, Task
from engine.devices import is_first, num_devices, together
from engine.errors import UserError, some
from engine.explain import user_line
from engine.loggers import DashboardLogger
from engine.predictions import PredictionWriter
from engine.record import Record, checkpointing, finish_checkpoints, summarize
from engine.report import console, print_closing, print_first_lines, print_metrics, resume_command
from engine.runs import environment, folder_of, new_run, write_json
from engine.speed import slow_precision
from engine.watch import Stopped, Watch

# What the data know and the task needs, to build the net among other things.
FACTS = ("in_channels", "num_classes", "class_names")

FOLDER_OF_RUN = "TASKLIGHT_RUN"  # the first process of a run on several devices tells the others its folder by it

# Warnings of libraries about what is meant to be so.
QUIET = (
    ".*does not have many workers.*",  # on a few cores workers only cost time
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*smaller than the logging interval.*",
    ".*could not find the monitored key.*",  # a training that ends before its first validation gets one at the end
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",
)


def run(argv: list[str]) -> int:
    """Carry out a command; return 0, or 2 after one line about what the user can mend."""
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    arranged = argv
    try:
        arguments = arrange(argv)
        arranged = arguments.argv
        Command(arguments)
    except BrokenPipeError:  # whoever read our words has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:  # before there was anything to keep
        return 130
    except Exception as error:
        line = user_line(error, arranged)
        if line is None:
            raise
        who = "error" if is_first() else f"error in process {os.environ.get('LOCAL_RANK')}"
        print(f"{who}: {line}", file=sys.stderr)
        return 2
    finally:
        if is_first():
            os.environ.pop(FOLDER_OF_RUN, None)
    return 0


class Command(LightningCLI):
    """One command from its arguments to its last line.

    Args:
        arguments: The command.
    """

    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        self.folder: Path | None = None  # the run folder; None where a loose checkpoint is measured
        self.is_new = False  # whether this command has made the folder
        self.checkpoint: dict[str, Any] = {}
        if arguments.checkpoint:
            self.checkpoint = read_checkpoint(arguments.checkpoint)
        set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=allowed_imports(arguments.argv))
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
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
    def subcommands() -> dict[str, set[str]]:
        unused = {"model", "dataloaders", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"}
        return {
            "fit": unused,
            "validate": unused | {"verbose"},
            "test": unused | {"verbose"},
            "predict": unused | {"return_predictions"},
        }

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
            parser.add_argument("--input", type=list[str], help="Files and folders to predict", required=True)
        for fact in FACTS:
            target = f"model.init_args.{fact}"
            parser.link_arguments("data", target, compute_fn=partial(self.fact, name=fact), apply_on="instantiate")

    def fact(self, data: LightningDataModule, name: str) -> Any:
        """Return what the data know; a prediction, which has no training data, asks the checkpoint."""
        if self.arguments.verb == "predict":
            return self.checkpoint["hyper_parameters"][name]
        if not hasattr(type(data), name) and not hasattr(data, name):
            task = self.config[self.arguments.verb].model.class_path
            raise UserError(f"{task} needs {name!r}, which {type(data).__name__} does not know")
        value = getattr(data, name)
        trained = self.checkpoint.get("hyper_parameters", {}).get(name, value)
        if trained != value:
            raise UserError(f"the checkpoint {self.arguments.checkpoint} has {name} = {trained}, the data {value}")
        return value

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(self.arguments.argv)

    def before_instantiate_classes(self) -> None:
        config = self.config[self.arguments.verb]
        torch.set_flush_denormal(True)  # tiny numbers slow a CPU down tenfold
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision("high")
        for fact in FACTS:
            if config.model.init_args.get(fact) is not None:
                raise UserError(f"model.{fact} comes from the data and cannot be set")
        settings = self._parser(self.arguments.verb).dump(config, skip_none=False)
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
        self.settings = settings
        if self.folder:
            print_differences(self.folder / "config.yaml", self.settings)
        elif FOLDER_OF_RUN in os.environ:
            self.folder = Path(os.environ[FOLDER_OF_RUN])
        elif config.trainer.fast_dev_run:
            self.scratch = tempfile.TemporaryDirectory()
            self.folder = Path(self.scratch.name)  # nothing of it is kept
        else:
            self.folder = new_run(self.arguments.recipe)
            self.is_new = True
        loggers = config.trainer.logger if isinstance(config.trainer.logger, list) else [config.trainer.logger]
        for logger in loggers:
            if "save_dir" in getattr(logger, "init_args", {}):
                logger.init_args.save_dir = str(self.folder)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
            # Narrow convolutions run up to 1.6 times faster on CPUs, and on GPUs in half precision, in this order.
            self.model.to(memory_format=torch.channels_last)
            if self.arguments.verb != "predict":
                self.datamodule.prepare_data()
        except (Exception, KeyboardInterrupt):
            if self.is_new and self.folder:  # nothing has been trained: leave nothing behind
                shutil.rmtree(self.folder)
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        kwargs["default_root_dir"] = str(self.folder or Path.cwd())
        trainer = self._get(self.config_init, "trainer")
        configured = trainer.callbacks or []
        if self.arguments.verb == "predict":
            kwargs["devices"] = 1  # files are written by one
        elif trainer.strategy == "auto" and num_devices(trainer.accelerator, trainer.devices) > 1:
            kwargs["strategy"] = together()
            kwargs["use_distributed_sampler"] = False  # ours share the work themselves
        if self.arguments.verb == "fit" and self.folder:
            self.record, self.checkpoints = Record(), checkpointing(self.folder, cast(Task, self.model))
            steps = trainer.log_every_n_steps or 50  # Lightning's own default
            self.watch = Watch(self.folder / "checkpoints" / "last.ckpt", self.config.fit.save_minutes, steps)
            rates = [LearningRateMonitor()] if trainer.logger else []
            kwargs["callbacks"] = [*configured, *rates, self.record, self.watch, self.checkpoints]
            kwargs["plugins"] = [*(trainer.plugins or []), AtomicCheckpointIO()]
        else:
            kwargs["enable_checkpointing"] = False
        if self.arguments.verb == "predict" and self.arguments.checkpoint:
            checkpoint = self.arguments.checkpoint
            alone = checkpoint.with_name(f"{checkpoint.stem}_predictions")
            folder = self.folder / "predictions" if self.folder else alone
            self.writer = PredictionWriter(folder, f"{self.arguments.recipe}: {checkpoint}")
            kwargs["callbacks"] = [*configured, self.writer]
        return super().instantiate_trainer(**kwargs)

    def first_lines(self) -> None:
        """Say what is about to happen."""
        task, trainer = self.model, self.trainer
        parameters = sum(parameter.numel() for parameter in task.parameters())
        device = trainer.strategy.root_device
        lines = {"recipe": self.arguments.recipe}
        if self.arguments.checkpoint:
            lines["checkpoint"] = str(self.arguments.checkpoint)
        if self.arguments.verb != "predict":
            lines["data"] = str(self.datamodule)
        lines["net"] = f"{type(cast(Task, task).net).__name__}, {parameters:,} parameters"
        lines["device"] = f"{device}, precision {trainer.precision}"
        if slow_precision(str(trainer.precision), device):
            lines["device"] += "; this CPU has no units for bf16: it will be slower than 32-true"
        if self.folder:
            lines["folder"] = str(self.folder)
        if self.arguments.notes:
            lines["note"] = "; ".join(self.arguments.notes)
        print_first_lines(lines)

    def fit(self, model: LightningModule, datamodule: LightningDataModule, ckpt_path: str | None) -> None:
        """Train, validate where the training ended, measure the best checkpoint, and write everything down."""
        config, trainer, folder = self.config.fit, self.trainer, Path(self.trainer.default_root_dir)
        self.first_lines()
        surroundings = environment(str(trainer.strategy.root_device))
        if trainer.is_global_zero:
            (folder / "config.yaml").write_text(self.settings)
            with (folder / "command.txt").open("a") as file:
                file.write(f"python {shlex.join(sys.argv)}\n")
            write_json(folder / "environment.json", surroundings)
        os.environ[FOLDER_OF_RUN] = str(folder.absolute())
        for logger in trainer.loggers:
            logger.log_hyperparams(
                {"config": yaml.safe_load(self.settings), "command": shlex.join(sys.argv), **surroundings}
            )
        try:
            trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
            if self.watch.signum:  # in the last epoch
                raise Stopped(self.watch.signum)
        except Stopped as stop:
            print_first_lines({"stopped": f"resume with {resume_command(folder)}"})
            raise SystemExit(128 + stop.signum) from None
        if not config.trainer.fast_dev_run:
            best = finish_checkpoints(trainer, model, datamodule, self.checkpoints, self.record)
            if config.test_after_fit:
                # Not by ckpt_path: a callback that averages weights would put the raw ones in their place.
                model.load_state_dict(read_checkpoint(best)["state_dict"])
                trainer.test(model, datamodule=datamodule, verbose=False)
                summary = summarize(trainer, model, datamodule, self.record, config.recipe, config.seed_everything)
                print_closing(summary, folder)
        for logger in trainer.loggers:
            if isinstance(logger, DashboardLogger):
                logger.close()

    def validate(self, model: LightningModule, datamodule: LightningDataModule, ckpt_path: str) -> None:
        """Measure a checkpoint on the validation part."""
        self.first_lines()
        self.trainer.validate(model, datamodule=datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=True)
        print_metrics({key: float(value) for key, value in self.trainer.callback_metrics.items()})

    def test(self, model: LightningModule, datamodule: LightningDataModule, ckpt_path: str) -> None:
        """Measure a checkpoint on the test part."""
        self.first_lines()
        self.trainer.test(model, datamodule=datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=True)
        print_metrics({key: float(value) for key, value in self.trainer.callback_metrics.items()})

    def predict(self, model: LightningModule, datamodule: LightningDataModule, ckpt_path: str) -> None:
        """Apply a checkpoint to the user's files."""
        self.first_lines()
        datamodule.load_state_dict(self.checkpoint[type(datamodule).__qualname__])
        dataset = cast(Predictable, datamodule).predict_dataset([Path(path) for path in self.config.predict.input])
        if dataset.skipped:
            console.print(f"skipped {len(dataset.skipped)} that cannot be read: {some(dataset.skipped)}", markup=False)
        if not len(dataset):
            raise UserError(f"there is nothing to predict in {some(self.config.predict.input)}")
        loader = DataLoader(cast("Dataset[dict[str, Any]]", dataset))
        self.trainer.predict(model, loader, return_predictions=False, ckpt_path=ckpt_path, weights_only=True)
        folder = self.writer.folder
        print_first_lines({"predicted": f"{len(dataset)} files, into {folder}/", "look at": f"{folder}/index.html"})


def print_differences(old: Path, new: str) -> None:
    """Say which settings of a resumed run differ from those it was started with."""
    before, after = (flattened(yaml.safe_load(text)) for text in (old.read_text(), new))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            print(f"changed since the run was started: {key} = {after.get(key)} (was {before.get(key)})")


def flattened(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested config as dotted keys."""
    if not isinstance(config, dict) or not config:
        return {prefix: config}
    items: dict[str, Any] = {}
    for key, value in config.items():
        items |= flattened(value, f"{prefix}.{key}".lstrip("."))
    return items
