"""From an exception to one line that says what to mend."""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from engine.arguments import DEFAULT, allowed_imports, did_you_mean, lookup, merge, read_yaml
from engine.errors import UserError


def user_line(error: BaseException, argv: list[str]) -> str | None:
    """Return the line for an error that the user can mend, or None for a fault of the program.

    Args:
        error: What was raised; jsonargparse wraps what constructors raise.
        argv: The arguments in the order in which they were read.
    """
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    for link in chain:
        if isinstance(link, UserError):
            return one_line(str(link))
        denied = re.search(r"Importing '([^']+)' is not allowed", str(link))
        if denied:
            package = denied[1].split(".")[0]
            return f"a config may not name {denied[1]}; if you trust it, set TASKLIGHT_ALLOW={package}"
    if isinstance(error, RuntimeError) and "loading state_dict" in str(error):
        return f"the checkpoint does not fit the net: {one_line(str(error).partition(':')[2])[:200]}"
    if "does not allow for gradient clipping" in str(error):  # one that undoes the scaling of 16-mixed itself
        return (
            "a fused optimizer cannot clip gradients in 16-mixed; add --model.optimizer.fused false, or take bf16-mixed"
        )
    if re.search(r"gloo.*(Connection (reset|closed)|[Tt]imed out)", str(error)):
        return (
            "another process of this run has died or hangs; go on with --ckpt_path last, or let torchrun "
            "--max-restarts do it (docs/several_machines.md)"
        )
    if type(error).__name__ == "ArgumentError":
        unknown = next(unknown_keys(argv), None)
        return unknown or innermost(chain)
    if isinstance(error, OSError):
        return one_line(str(error))
    return None


def one_line(text: str) -> str:
    """Return a text without its line breaks."""
    return " ".join(text.split())


def innermost(chain: list[BaseException]) -> str:
    """Return the last and most exact of jsonargparse's messages, after the key that it is about."""
    keys = [key for link in chain[:1] for key in re.findall(r'Parser key "([^"]+)"', str(link))]
    given = re.search(r"Given value: (.*)", str(chain[0]))
    value = f" (given: {given[1]})" if given else ""
    message = one_line(str(chain[-1])).replace("lightning.pytorch.", "")
    return f"{'.'.join(keys)}: {message}{value}" if keys else message


def unknown_keys(argv: list[str]) -> Iterator[str]:
    """Yield a line for every key that nobody takes, and every class that does not exist."""
    config = read_yaml(DEFAULT)
    files = [DEFAULT]
    sections = (
        "seed_everything",
        "trainer",
        "model",
        "data",
        "recipe",
        "test_after_fit",
        "save_minutes",
        "ckpt_path",
        "input",
        "prompt",
    )
    for argument in argv[1:]:
        flag, _, value = argument.partition("=")
        key = flag.removeprefix("--")
        if key == "print_config":
            continue
        if key == "config":
            files.append(Path(value))
            merge(config, read_yaml(files[-1]))
        elif value == "null":
            place(config, key, {"class_path": None})
        else:
            place(config, key, value)
    places: dict[str, str] = {}
    for file in files:
        places |= {key: f"{file}:{line}: " for key, line in lines_of(file).items()}
    takers = {"trainer": {"class_path": "lightning.pytorch.Trainer", "init_args": config.get("trainer") or {}}}
    takers |= {key: config[key] for key in ("model", "data") if isinstance(config.get(key), dict)}
    for key in config:
        if key not in sections:
            line = f"there is no {key!r}{did_you_mean(key, sections)}; there are {', '.join(sections)}"
            yield places.get(key, f"--{key}: ") + line
    allowed = allowed_imports(argv)
    for key, node in takers.items():
        for bad, line in check(node, key, allowed):
            yield places.get(bad, f"--{bad}: ") + line


def place(config: dict[str, Any], key: str, value: Any) -> None:
    """Put a flag's value where a config would have it."""
    old = lookup(config, key)
    if isinstance(old, dict) and "class_path" in old and isinstance(value, str):
        old["class_path"] = value
        return
    parent, _, name = key.rpartition(".")
    node = config
    for part in parent.split(".") if parent else []:
        node = node.setdefault("init_args", {}) if "class_path" in node else node
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            return
    node = node.setdefault("init_args", {}) if "class_path" in node else node
    node[name] = value


def check(node: Any, prefix: str, allowed: list[str]) -> Iterator[tuple[str, str]]:
    """Yield dotted key and complaint for what a class path's constructor does not take, the classes below included."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from check(item, f"{prefix}.{index}", allowed)
    if not isinstance(node, dict) or not isinstance(node.get("class_path"), str):
        return
    path = node["class_path"]
    module, _, name = path.rpartition(".")
    if not module or not any(f"{path}.".startswith(f"{entry}.") for entry in allowed):
        return  # a short name, of a class that jsonargparse has seen; or one that must not be imported
    try:
        taker = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        yield prefix, f"there is no class {path} ({error}){did_you_mean(name, classes_near(module))}"
        return
    parameters = inspect.signature(taker).parameters
    for argument, value in (node.get("init_args") or {}).items():
        if argument.removesuffix("+") not in parameters:  # a plus appends to a list
            hint = did_you_mean(argument, parameters)
            yield f"{prefix}.{argument}", f"{name} takes no {argument!r}{hint}; it takes {', '.join(parameters)}"
        yield from check(value, f"{prefix}.{argument}", allowed)


def classes_near(module: str) -> list[str]:
    """Return the classes of a module, or nothing if it does not exist."""
    try:
        return [name for name, value in vars(importlib.import_module(module)).items() if inspect.isclass(value)]
    except ImportError:
        return []


def lines_of(file: Path) -> dict[str, int]:
    """Return the line of every dotted key of a config, named as flags name it."""
    found: dict[str, int] = {}

    def walk(node: yaml.Node | None, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = prefix if key.value in ("init_args",) else f"{prefix}.{key.value}".lstrip(".")
                found[inner] = key.start_mark.line + 1
                walk(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                walk(item, f"{prefix}.{index}")

    walk(yaml.compose(file.read_text("utf-8")), "")
    return found
