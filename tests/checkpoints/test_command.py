"""The command line of the weights registry."""

import logging

import pytest

from latentsync.checkpoints.command import main
from tests.checkpoints.test_registry import hub, no_hub_outside  # noqa: F401 - fixtures


@pytest.mark.parametrize("place", ["before", "after"])
def test_fetch_verify_and_list(hub, tmp_path, caplog, place):  # noqa: F811
    caplog.set_level(logging.INFO)
    folder = ["--checkpoints", str(tmp_path)]

    def call(*words: str) -> int:
        return main([*folder, *words] if place == "before" else [*words, *folder])

    assert call("verify", "small") == 1
    assert call("fetch", "small", "--endpoint", hub.url) == 0
    assert call("verify", "small") == 0
    assert call("list") == 0
    assert str(tmp_path / "x" / "two.pt") in caplog.text
    assert call("fetch", "nothing") == 1
    assert "unknown checkpoint" in caplog.text


def test_the_earlier_name_of_the_folder_option_is_accepted(hub, tmp_path):  # noqa: F811
    assert main(["--root", str(tmp_path), "fetch", "one", "--endpoint", hub.url]) == 0
    assert (tmp_path / "x" / "one.pt").is_file()
