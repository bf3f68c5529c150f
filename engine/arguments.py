"""From what a user types to what LightningCLI reads; imports nothing heavy, so that mistakes are answered at once."""

import difflib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.errors import UserError
from engine.runs import find_checkpoint, folder_of

VERBS = {
    "fit": "train, then measure the best checkpoint on the test part",
    "validate": "measure a checkpoint on the validation part",
    "test": "measure a checkpoint on the test part",
    "predict": "apply a checkpoint to the files given by --input, or continue the texts given by --prompt",
    "check": "look at the data without training: what is broken, what is odd, what they are like",
    "export": "write the net of a checkpoint as ONNX, for programs without PyTorch",
    "list": "list the recipes",
}
# What a config may name. A class path in a file imports its module before anything is checked, and a file may come from
# anywhere; what is typed as a flag is always allowed, and TASKLIGHT_ALLOW=mypackage,other allows more.
ALLOWED = (
    *("tasks", "nets", "datamodules", "engine", "lightning.pytorch", "torch.nn", "torch.optim"),
    *("torchvision", "torchmetrics", "timm", "segmentation_models_pytorch"),
)
UNTRAINED = ("fit", "check")  # the verbs that need no checkpoint
SEVERAL = ("--input", "--prompt")  # the flags that take several values
DEFAULT = Path(__file__).parent.parent / "configs" / "default.yaml"


@dataclass
class Arguments:
    """A command, made ready.

    Args:
        verb: What to do.
        recipe: Name of the recipe, and of its folder below ``runs/``.
        checkpoint: The checkpoint to start from, if any.
        argv: The verb and the options in the order in which LightningCLI must read them.
        notes: What the user should be told.
    """

    verb: str
    recipe: str
    checkpoint: Path | None
    argv: list[str]
    notes: list[str]


def arrange(argv: list[str]) -> Arguments:
    """Find out the recipe and the checkpoint, and put the options in order.

    Configs come before flags wherever they were typed. Every verb but ``fit`` and ``check`` starts from the config of
    the run that the checkpoint lies in. A class named anew, by a flag or by a later config, starts from its own
    defaults.

    Raises:
        UserError: The verb, a config or the checkpoint does not exist.
    """
    verb = argv[0]
    if verb not in VERBS:
        raise UserError(f"there is no verb {verb!r}{did_you_mean(verb, VERBS)}; the verbs are {', '.join(VERBS)}")
    configs, flags = split_off_configs(argv[1:])
    if any(flag[0].endswith(("-h", "help")) for flag in flags):
        return Arguments(verb, "", None, [verb, *(part for flag in flags for part in flag)], [])

    wanted = next((flag[-1] for flag in reversed(flags) if flag[0] == "--ckpt_path"), None)
    named = next((flag[-1] for flag in reversed(flags) if flag[0] == "--recipe"), None)
    flags = [flag for flag in flags if flag[0] not in ("--ckpt_path", "--recipe")]
    if wanted and verb == "check":
        raise UserError("check looks at data, not at a checkpoint: leave out --ckpt_path")
    if not configs and (verb in UNTRAINED or wanted in (None, "best", "last")):
        raise UserError(f"{verb} needs a recipe: --config configs/NAME.yaml (python train.py list names them)")
    recipe = named or (recipe_of(configs[0]) if configs else "")
    checkpoint = None
    if wanted or verb not in UNTRAINED:
        run = folder_of(configs[0].parent / "checkpoints" / "best.ckpt") if configs else None  # a run's own config
        prefer = "last" if verb == "fit" else "best"
        checkpoint = find_checkpoint(wanted or str(run or prefer), recipe, prefer)
        folder = folder_of(checkpoint)
        if folder and verb != "fit":
            trained = recipe_of(folder / "config.yaml")
            if configs and not named and recipe != trained:
                raise UserError(
                    f"the checkpoint {checkpoint} is of the recipe {trained}, not {recipe}: leave out --config"
                )
            configs = [folder / "config.yaml", *configs[1:]]
            recipe = recipe_of(configs[0])
        elif not configs:
            raise UserError(
                f"{checkpoint} does not lie in a run folder with a config.yaml; give its recipe by --config"
            )
    names = {flag[0] for flag in flags}
    if "--trainer.max_time" in names and not names & {"--trainer.max_epochs", "--trainer.max_steps"}:
        flags.append(("--trainer.max_epochs", "-1"))  # the whole time is used
    flags.append(("--recipe", recipe))
    composed, notes = with_fresh_classes(configs, flags)
    return Arguments(verb, recipe, checkpoint, [verb, *composed], notes)


def split_off_configs(argv: list[str]) -> tuple[list[Path], list[tuple[str, ...]]]:
    """Return the configs, and the flags with their values, in the order in which they were typed."""
    configs: list[Path] = []
    flags: list[tuple[str, ...]] = []
    rest = list(argv)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not flag.startswith("-"):
            raise UserError(f"{flag!r} is neither a flag nor a flag's value")
        values = [value] if equals else []
        while not equals and rest and not (rest[0].startswith("-") and not is_number(rest[0])):
            values.append(rest.pop(0))
            if flag not in SEVERAL:
                break
        if flag in ("--config", "-c"):
            configs.append(existing_config(values[0] if values else ""))
        elif flag in SEVERAL:
            flags.append((flag, json.dumps(values)))
        else:
            flags.append((flag, *values))
    return configs, flags


def with_fresh_classes(configs: list[Path], flags: list[tuple[str, ...]]) -> tuple[list[str], list[str]]:
    """Write configs and flags as arguments, with ``--KEY=null`` before a class that replaces another.

    LightningCLI would hand the old class's arguments, defaults too, to the new class wherever their names agree. Only
    the batch size of the data is carried over.

    Returns:
        The arguments, and notes on what was carried over.
    """
    merged = read_yaml(DEFAULT)
    argv, notes = [], []
    for path in configs:
        content = read_yaml(path)
        argv += [f"--{key}=null" for key in replaced_classes(merged, content)]
        argv.append(f"--config={path}")
        merge(merged, content)
    for flag, *values in flags:
        key, value = flag.removeprefix("--"), "".join(values)
        node = lookup(merged, key)
        if isinstance(node, dict) and "class_path" in node and value.replace(".", "").replace("_", "").isalnum():
            old = node["class_path"].rsplit(".", 1)[-1]
            if old != value.rsplit(".", 1)[-1] and value != "null":
                argv += [f"--{key}=null", f"--{key}={value}"]
                batch_size = node.get("init_args", {}).get("batch_size")
                notes.append(f"{value.rsplit('.', 1)[-1]} takes the place of {old} and starts from its own defaults")
                if key == "data" and batch_size:
                    argv.append(f"--data.batch_size={batch_size}")
                    notes[-1] += f", but for the batch size {batch_size}"
                node.clear()
                node["class_path"] = value
                continue
        argv.append(f"{flag}={values[0]}" if values else flag)
    return argv, notes


def allowed_imports(argv: list[str]) -> list[str]:
    """Return the packages, modules and classes that configs may name in a command."""
    typed = [argument.partition("=")[2] for argument in argv if not argument.startswith("--config=")]
    classes = [path for path in typed if "." in path and all(part.isidentifier() for part in path.split("."))]
    named = [path.strip() for path in os.environ.get("TASKLIGHT_ALLOW", "").split(",") if path.strip()]
    return [*ALLOWED, *classes, *named]


def replaced_classes(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the keys under which ``new`` names another class than ``old``, as flags name them."""
    found = []
    for key, value in new.items():
        before = old.get(key)
        if not isinstance(value, dict) or not isinstance(before, dict):
            continue
        path = prefix if key == "init_args" else f"{prefix}.{key}".lstrip(".")
        if replaces(before, value):
            found.append(path)
        else:
            found += replaced_classes(before, value, path)
    return found


def merge(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Lay one config over another, in place."""
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and not replaces(before, value):
            merge(before, value)
        else:
            old[key] = value


def replaces(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Tell whether a setting names another class than the one before it."""
    return new.get("class_path", old.get("class_path")) != old.get("class_path")


def lookup(config: dict[str, Any], key: str) -> Any:
    """Return what a config holds under a flag's dotted key, which leaves out ``init_args``."""
    node: Any = config
    for name in key.split("."):
        if isinstance(node, dict) and name not in node:
            node = node.get("init_args")
        node = node.get(name) if isinstance(node, dict) else None
    return node


def existing_config(name: str) -> Path:
    """Return the path of a config that is there."""
    path = Path(name)
    if path.is_file():
        return path
    nearby = [str(other) for other in path.parent.glob("*.yaml")] if name else []
    raise UserError(f"the config {name or '(none given)'} does not exist{did_you_mean(str(path), nearby)}")


def recipe_of(config: Path) -> str:
    """Return the recipe that a config belongs to: what a run has saved in it, else its own name."""
    return str(read_yaml(config).get("recipe") or config.stem)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a config."""
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line} is not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no settings")
    return content


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" if a known word is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def is_number(text: str) -> bool:
    """Tell whether a value that starts with a minus is a number, not a flag."""
    try:
        float(text)
    except ValueError:
        return False
    return True
