"""The pages: links lead somewhere, and the options are those of the command line."""

import re
from argparse import ArgumentParser
from pathlib import Path

import pytest

from latentsync.cli.inference import inference_parser
from latentsync.cli.profile import profiler_parser
from tests.integration.sandbox import REPOSITORY

PAGES = sorted(
    path.relative_to(REPOSITORY)
    for pattern in ("*.md", "docs/**/*.md", "checkpoints/**/*.md", "assets/**/*.md")
    for path in REPOSITORY.glob(pattern)
)
SETUP_OPTIONS = {"--weights", "--insightface", "--dev"}


def options_in(page: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z]\w*", (REPOSITORY / page).read_text(encoding="utf-8")))


def parser_options(parser: ArgumentParser) -> set[str]:
    return {name for action in parser._actions for name in action.option_strings if name.startswith("--")}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_to_files(page: Path):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = [target for target in targets if target and not (REPOSITORY / page.parent / target).exists()]
    assert not missing


def test_every_option_of_inference_is_explained():
    assert parser_options(inference_parser()) - {"--help"} <= options_in("docs/inference.md")


def test_every_option_of_the_profiler_is_explained():
    own = parser_options(profiler_parser()) - parser_options(inference_parser())
    assert own <= options_in("docs/profiling.md") <= parser_options(profiler_parser())


@pytest.mark.parametrize("page", ["docs/inference.md", "README.md"])
def test_no_page_names_an_option_that_does_not_exist(page: str):
    assert options_in(page) <= parser_options(inference_parser()) | SETUP_OPTIONS


def test_readme_lists_every_page():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert not [page for page in REPOSITORY.glob("docs/*.md") if f"docs/{page.name}" not in readme]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_what_python_examples_import_is_there(page: Path):
    for block in re.findall(r"```python\n(.*?)```", (REPOSITORY / page).read_text(encoding="utf-8"), re.DOTALL):
        for line in re.findall(r"^(?:from|import) .*", block, re.MULTILINE):
            exec(line, {})  # noqa: S102
