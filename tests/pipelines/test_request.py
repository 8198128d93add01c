"""One table of options: what `from_dict` accepts, its JSON Schema and the command line agree."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from latentsync.errors import ConfigError
from latentsync.pipelines.job import LipsyncJob

PATHS = {"video_path": "v.mp4", "audio_path": "a.wav", "video_out_path": "o.mp4"}
SCHEMA = LipsyncJob.json_schema()
NAMES = [field.name for field in fields(LipsyncJob)]
WORDS = [word for each in SCHEMA["properties"].values() for word in each.get("enum", []) if word]
NUMBERS = st.one_of(
    st.integers(-3, 60),
    st.integers(),
    st.floats(-1, 2),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, 1, 3, 51, 240, 240.5, 999, 1000, 86400, 2**63 - 1, 2**63]),
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.sampled_from([*WORDS, "", "7", "1000", "source", "25.5", "30000/1001", "1/", "largest", "a\0b"]),
    st.lists(st.floats(-0.1, 1.1), max_size=3).map(sorted),
    st.dictionaries(st.text(max_size=2), st.none(), max_size=1),
)
JOBS = st.builds(
    lambda paths, rest: {**paths, **rest},
    st.sampled_from([PATHS, {}]),
    st.dictionaries(st.sampled_from([*NAMES, "video"]), VALUES, max_size=4),
)


def accepted(values: dict[str, Any]) -> bool:
    try:
        LipsyncJob.from_dict(values)
    except ConfigError:
        return False
    return True


def test_the_schema_is_valid_and_describes_every_field() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert list(SCHEMA["properties"]) == NAMES and all(each["description"] for each in SCHEMA["properties"].values())
    assert SCHEMA["properties"]["crf"] == {
        "description": "x264 quality, 0 (lossless) to 51; lower is larger",
        "type": ["integer", "null"],
        "minimum": 0,
        "maximum": 51,
        "default": 14,
    }


@given(JOBS)
def test_schema_and_from_dict_accept_the_same(values: dict[str, Any]) -> None:
    # A schema cannot check the range of a rate given as text; "1000" is the only one drawn here.
    if values.get("output_fps") != "1000":
        assert Draft202012Validator(SCHEMA).is_valid(values) == accepted(values)


@pytest.mark.parametrize("name", NAMES)
@given(value=VALUES)
def test_every_field_alone_agrees_with_the_schema(name: str, value: Any) -> None:
    if (name, value) != ("output_fps", "1000"):
        assert Draft202012Validator(SCHEMA).is_valid({**PATHS, name: value}) == accepted({**PATHS, name: value})


@given(JOBS.filter(accepted))
def test_what_is_accepted_becomes_json_and_back(values: dict[str, Any]) -> None:
    job = LipsyncJob.from_dict(values)
    plain = json.loads(json.dumps(job.to_dict()))
    assert Draft202012Validator(SCHEMA).is_valid(plain) and LipsyncJob.from_dict(plain) == job


def parser(names: list[str] | None = None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    for flag, keywords in LipsyncJob.command_line(names).items():
        made.add_argument(flag, **keywords)
    return made


def test_the_command_line_follows_from_the_table() -> None:
    words = "--video_path v.mp4 --audio_path a.wav --video_out_path o.mp4 --crf 20 --overwrite --solver unipc"
    options = parser().parse_args([*words.split(), "--guidance_interval", "0", "0.7", "--face", "1"])
    job = LipsyncJob.from_dict(vars(options))
    assert (job.crf, job.overwrite, job.solver, job.guidance_interval, job.face) == (20, True, "unipc", (0.0, 0.7), "1")
    nothing = vars(parser(["crf", "overwrite"]).parse_args([]))
    assert nothing == {"crf": None, "overwrite": None}
    assert LipsyncJob.from_dict({**PATHS, **nothing}, defaults={"crf": 20}).crf == 20


def test_help_states_choices_and_defaults() -> None:
    text = " ".join(parser().format_help().split())
    assert "--windows {blend,tail,published}" in text and "(default: blend)" in text
    assert "{ddim,dpm++,unipc}" in text and "(default: 14)" in text and "MISSING" not in text


def test_long_values_are_shortened_in_messages() -> None:
    with pytest.raises(ConfigError) as caught:
        LipsyncJob.from_dict({**PATHS, "crf": "9" * 1000})
    assert len(str(caught.value)) < 250
