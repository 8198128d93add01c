"""Fixtures that every room's tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import torch

from tests.golden_files import SAMPLE_FOLDER, Golden, load_golden

if TYPE_CHECKING:
    from tests.training.tiny_training import TinyTraining

# A busy machine must not turn a slow example into a failure.
hypothesis.settings.register_profile("suite", deadline=None, max_examples=50)
hypothesis.settings.load_profile("suite")


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    """Loader of golden cases: ``golden("face_warp").inputs["image"]``; skips when the file is not at hand."""
    return load_golden


@pytest.fixture
def samples_dir() -> Path:
    """Folder with real clips, which are never part of the repository; skips when absent."""
    if not SAMPLE_FOLDER.is_dir():
        pytest.skip("real sample clips are not beside this repository")
    return SAMPLE_FOLDER


@pytest.fixture(scope="session")
def tiny_training(tmp_path_factory: pytest.TempPathFactory) -> "TinyTraining":
    """A corpus, networks and configurations that a training takes seconds with; leave them as they are."""
    from tests.training.tiny_training import write_tiny_training  # takes seconds to import

    return write_tiny_training(tmp_path_factory.mktemp("tiny_training") / "work")


@pytest.fixture(autouse=True)
def fixed_seed() -> Iterator[None]:
    """Start every test from the same random state and leave none behind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` where no CUDA device is present."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which nothing passed: skipping everything must not look like success."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.exitstatus == pytest.ExitCode.OK and reporter is not None and not reporter.stats.get("passed"):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
