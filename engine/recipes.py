"""``list`` and the program's help: answered from the YAML files alone, without importing torch."""

from pathlib import Path

from engine.arguments import DEFAULT, VERBS, read_yaml

USAGE = "python train.py VERB --config configs/NAME.yaml [--key value ...]"


def recipes() -> list[Path]:
    """Return the configs that are recipes."""
    return sorted(path for path in DEFAULT.parent.glob("*.yaml") if path != DEFAULT)


def print_help() -> None:
    """Print what ``python train.py --help`` says."""
    print(f"usage: {USAGE}\n\nverbs:")
    for verb, meaning in VERBS.items():
        print(f"  {verb:10}{meaning}")
    print("\nexamples:")
    print("  python train.py fit --config configs/unet.yaml")
    print("  python train.py fit --config configs/unet.yaml --trainer.max_epochs 3 --model.net.width 16")
    print("  python train.py check --config configs/housing.yaml")
    print("  python train.py predict --config configs/unet.yaml --input my_picture.png my_folder")
    print("  python train.py export --config configs/unet.yaml")
    print("\nall keys of a verb: python train.py VERB --help")


def print_recipes() -> None:
    """Print a line for every recipe: name, chapter, task, net, data, and what was measured."""
    lines = [("recipe", "chapter", "task", "net", "data", "measured")]
    for path in recipes():
        chapter, _, measured = path.read_text("utf-8").partition("\n")[0].lstrip("# ").partition(" | ")
        config = read_yaml(path)
        net = config["model"]["init_args"].get("net", {}).get("class_path", "")
        classes = [config["model"]["class_path"], net, config["data"]["class_path"]]
        lines.append((path.stem, chapter, *(name.rsplit(".", 1)[-1] for name in classes), measured))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
