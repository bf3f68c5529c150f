"""What README and docs promise is what the program does."""

import importlib.util
import json
import re
import shlex

import pytest
from conftest import ROOT

from engine.arguments import split_off_configs
from engine.recipes import recipes

PAGES = [ROOT / "README.md", ROOT / "README.ko.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(
    {
        match.strip()
        for page in PAGES
        for match in re.findall(r"python train\.py ([a-z]+ --[^`\n|]*)", page.read_text("utf-8"))
    }
)


def test_every_recipe_is_in_the_map():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert recipes()
    for recipe in recipes():
        assert f"[{recipe.stem}](docs/{recipe.stem}.md)" in readme
        assert (ROOT / "docs" / f"{recipe.stem}.md").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(tasklight, monkeypatch, command):
    monkeypatch.chdir(ROOT)
    verb, *rest = shlex.split(command)
    if verb in ("fit", "check") and "--ckpt_path" not in rest:
        code, out, err = tasklight(verb, *rest, *([] if "--print_config" in rest else ["--print_config"]))
        assert code == 0 and "class_path" in out, err
    else:  # these need a run; their flags are those of the verb
        _, flags = split_off_configs([word.replace("runs/unet/0/config.yaml", "configs/unet.yaml") for word in rest])
        _, out, _ = tasklight(verb, "--help")
        for flag, *_ in flags:
            assert flag in out


def test_korean_readme_keeps_step():
    """The same commands in the same order, the same links and figures; other words."""
    english, korean = (page.read_text("utf-8") for page in PAGES[:2])

    def code(text):
        spans = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
        return [re.sub(r"(^|  +)#.*|[\uac00-\ud7a3].*", "", span, flags=re.MULTILINE).split() for span in spans]

    def figures(text):
        return [re.findall(r"\d+\.\d+", line) for line in text.splitlines() if line.startswith("| [")]

    def links(text):
        targets = re.findall(r"\]\(([^)]+)\)", text)
        return sorted(target for target in targets if not target.startswith("README"))

    assert [span for span in code(english) if "python" in span] == [span for span in code(korean) if "python" in span]
    assert figures(english) == figures(korean)
    assert links(english) == links(korean)
    assert english.count("\n## ") == korean.count("\n## ") and english.count("\n| ") == korean.count("\n| ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


@pytest.fixture
def record():
    spec = importlib.util.spec_from_file_location("record", ROOT / "benchmarks" / "record.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_of_results_is_what_was_recorded(record):
    assert (ROOT / "docs" / "results.md").read_text("utf-8") == record.page()
    assert all(f"| [{recipe.stem}](" in record.page() for recipe in recipes())


@pytest.mark.parametrize("recipe", recipes(), ids=lambda path: path.stem)
def test_first_line_of_a_recipe_is_what_was_recorded(record, recipe):
    runs = json.loads((ROOT / "docs" / "results" / f"{recipe.stem}.json").read_text())
    assert len({run["seed"] for run in runs}) >= 3
    assert recipe.read_text().partition("\n")[0].partition(" | ")[2] == record.measured(runs)
    value = f"{record.measured(runs).split(' ')[1]}"
    row = next(line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if f"[{recipe.stem}]" in line)
    assert value in row
