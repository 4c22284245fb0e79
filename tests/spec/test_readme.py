"""What the READMEs name exists: files, functions, targets, and nothing longer than promised."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STOPS = re.findall(r"`(edge/[\w/]+\.py): (\w+)`", (ROOT / "edge/README.md").read_text())
LENGTHS = [("README.md", 150), ("edge/README.md", 185), ("netlab/README.md", 140), ("models/README.md", 120)]


def test_the_life_of_a_request_has_its_stops():
    assert len(STOPS) >= 8


@pytest.mark.parametrize(("file", "function"), STOPS)
def test_each_stop_exists(file, function):
    tree = ast.parse((ROOT / file).read_text())
    defined = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert function in defined


@pytest.mark.parametrize(("name", "limit"), LENGTHS)
def test_readmes_are_short(name, limit):
    assert len((ROOT / name).read_text().splitlines()) <= limit


@pytest.mark.parametrize("name", [name for name, _ in LENGTHS])
def test_links_of_readmes_lead_somewhere(name):
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / name).parent / target).exists(), target


def test_every_make_target_that_the_readme_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text())) - {"it"}
    assert named <= targets
