"""Train, measure and use any recipe: ``python train.py fit --config configs/unet.yaml``."""

import sys

from engine.recipes import print_help, print_recipes


def main(argv: list[str]) -> int:
    """Carry out a command and return its exit code; what needs no torch is answered without it."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print_help()
        return 0
    if argv[0] == "list":
        print_recipes()
        return 0
    from engine.command import run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
