"""The verbs: what a command does with its task, data and trainer, and how it ends."""

import json
import logging
import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import wandb
import yaml
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, Dataset

from engine.arguments import arrange
from engine.check import examine
from engine.check_page import Report, print_report, write_page
from engine.checkpoints import read_checkpoint
from engine.cli import CLI, FACTS, FOLDER_OF_RUN, WITHOUT_DATA
from engine.contract import Predictable, Task
from engine.devices import end_with_launcher, is_first, rank
from engine.errors import UserError, some
from engine.explain import user_line
from engine.loggers import DashboardLogger
from engine.record import finish_checkpoints, summarize
from engine.report import console, print_closing, print_first_lines, print_metrics, resume_command
from engine.runs import RUNS, environment, write_json
from engine.speed import slow_precision
from engine.watch import Stopped

# Warnings of libraries about what is meant to be so.
QUIET = (
    ".*does not have many workers.*",  # on a few cores workers only cost time
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*smaller than the logging interval.*",
    ".*could not find the monitored key.*",  # a training that ends before its first validation gets one at the end
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*in eval mode at the start of training.*",  # what judges, teaches or is an average does not learn
    ".*lr_scheduler.step.* before .*optimizer.step.*",  # a net that waits for its turn
    ".*isinstance\\(treespec, LeafSpec\\).*",
)


def run(argv: list[str]) -> int:
    """Carry out a command; return 0, or 2 after one line about what the user can mend."""
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    end_with_launcher()
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
        who = "error" if is_first() else f"error in process {rank()}"
        print(f"{who}: {line}", file=sys.stderr)
        return 2
    finally:
        if is_first():
            os.environ.pop(FOLDER_OF_RUN, None)
    return 0


class Command(CLI):
    """One command, carried out."""

    def first_lines(self) -> None:
        """Say what is about to happen."""
        task, trainer = self.model, self.trainer
        parameters = sum(parameter.numel() for parameter in task.parameters())
        device = trainer.strategy.root_device
        lines = {"recipe": self.arguments.recipe}
        if self.arguments.checkpoint:
            lines["checkpoint"] = str(self.arguments.checkpoint)
        if self.arguments.verb not in WITHOUT_DATA:
            lines["data"] = str(self.datamodule)
        lines["net"] = f"{type(cast(Task, task).net).__name__}, {parameters:,} parameters"
        lines["device"] = f"{device}, precision {trainer.precision}"
        if slow_precision(str(trainer.precision), device):
            lines["device"] += "; this CPU has no units for bf16: it will be slower than 32-true"
        odd = [finding for finding in self.findings if not finding.broken]  # what is broken is named by the data
        if odd:
            lines["odd"] = "; ".join(finding.words for finding in odd)
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
            trainer.ckpt_path = ckpt_path  # by which a task's setup knows that a checkpoint brings what it would make
            trainer.fit(model, datamodule=datamodule, weights_only=True)
            trainer.ckpt_path = None  # else the validation at the end would start from it again
            if self.watch.signum:  # in the last epoch
                raise Stopped(self.watch.signum)
        except Stopped as stop:
            print_first_lines({"stopped": f"resume with {resume_command(folder)}"})
            raise SystemExit(128 + stop.signum) from None
        except UserError:
            if not (folder / "checkpoints").exists():
                wandb.finish()
                self.forget()
            raise
        if not config.trainer.fast_dev_run:
            best = finish_checkpoints(trainer, model, datamodule, self.best, self.record)
            if config.test_after_fit:
                # Not by ckpt_path: a callback that averages weights would put the raw ones in their place.
                trainer.strategy.load_model_state_dict(read_checkpoint(best))
                trainer.test(model, datamodule=datamodule, verbose=False)
                measured = (self.record, self.doctor, config.recipe, config.seed_everything)
                summary = summarize(trainer, model, datamodule, *measured)
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
        """Apply a checkpoint to the user's files, or to what was typed."""
        files, prompts = self.config.predict.input, self.config.predict.prompt
        data: Any = datamodule
        reader: Any = next((which for which in (model, datamodule) if hasattr(which, "predict_prompts")), None)
        if bool(files) == bool(prompts):
            raise UserError("predict needs files and folders by --input, or texts by --prompt, not both")
        if prompts and not reader:
            raise UserError(f"{type(data).__name__} has no use for --prompt; it takes files by --input")
        self.first_lines()
        datamodule.load_state_dict(self.checkpoint.get(type(datamodule).__qualname__, {}))  # some have no state
        paths = [Path(path) for path in files]
        dataset = reader.predict_prompts(prompts) if prompts else cast(Predictable, data).predict_dataset(paths)
        if dataset.skipped:
            console.print(f"skipped {len(dataset.skipped)} that cannot be read: {some(dataset.skipped)}", markup=False)
        if not len(dataset):
            raise UserError(f"there is nothing to predict in {some(files)}")
        loader = DataLoader(cast("Dataset[dict[str, Any]]", dataset))
        self.trainer.predict(model, loader, return_predictions=False, ckpt_path=ckpt_path, weights_only=True)
        folder = self.writer.folder
        for row in self.writer.rows if prompts else []:
            said = "\n".join(value for key, value in row.items() if key != "path")
            console.print(f"\n{said}\n", markup=False, highlight=False)
        print_first_lines(
            {
                "predicted": f"{len(dataset)} {'texts' if prompts else 'files'}, into {folder}/",
                "look at": f"{folder}/index.html",
            }
        )

    def check(self, model: LightningModule | None, datamodule: LightningDataModule, ckpt_path: str | None) -> None:
        """Look at the data, write the report, and exit with 1 if anything is broken."""
        config, page = self.config.check, RUNS / self.arguments.recipe / "check" / "report.html"
        report = Report()
        report.add(self.findings)
        examine(report, self.trainer, model, datamodule, config.model.class_path, self.misfit)
        net = type(cast(Task, model).net).__name__ if model else "none can be made for these data"
        lines = {"recipe": self.arguments.recipe, "data": type(datamodule).__name__, "net": net}
        if self.arguments.notes:
            lines["note"] = "; ".join(self.arguments.notes)
        print_first_lines(lines)
        print_report(report, page)
        write_page(report, lines, page)
        if report.broken:
            raise SystemExit(1)

    def export(self, model: LightningModule, datamodule: LightningDataModule, ckpt_path: str) -> None:
        """Write a checkpoint's net, and what a program must know to use it, and check it in ONNX Runtime."""
        from engine.export import export  # what it needs takes seconds to import

        self.first_lines()
        data, task, checkpoint = cast(Predictable, datamodule), cast(Task, model), Path(ckpt_path)
        datamodule.load_state_dict(self.checkpoint.get(type(datamodule).__qualname__, {}))  # some have no state
        model.on_load_checkpoint(self.checkpoint)
        model.load_state_dict(self.checkpoint["state_dict"])
        known = self.checkpoint["hyper_parameters"]
        facts = {
            name: json.loads(known[name]) if name.endswith("tokenizer") else known[name]
            for name in FACTS
            if known.get(name) is not None
        }
        about = {"recipe": self.arguments.recipe, "task": type(task).__name__, "checkpoint": checkpoint.name}
        folder = self.folder / "export" if self.folder else checkpoint.with_name(f"{checkpoint.stem}_export")
        content = export(model, task.example(datamodule), folder, {**about, "preparation": data.preparation(), **facts})
        kilobytes = (folder / "model.onnx").stat().st_size / 1000
        print_first_lines(
            {
                "exported": f"{folder}/model.onnx, {kilobytes:,.0f} kB, and {folder}/model.json",
                "checked": f"largest error {content['max_error']:.1e}, in ONNX Runtime against PyTorch",
            }
        )
