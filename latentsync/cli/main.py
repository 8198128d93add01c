"""The ``latentsync`` command: dispatches to the command lines, each imported only when it is called."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import latentsync
from latentsync.cli.program import set_program_name

_SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes:
        summary: one line for ``latentsync --help``.
        entry: ``module:function`` that takes the remaining arguments and returns the exit code.
        parser: ``module:function`` that returns its argparse parser, for shell completion.
        prefix: arguments that the entry takes first.
    """

    summary: str
    entry: str
    parser: str
    prefix: tuple[str, ...] = ()


COMMANDS = {
    "run": Command(
        "lip-sync videos", "latentsync.cli.inference:run_inference", "latentsync.cli.inference:inference_parser"
    ),
    "train syncnet": Command(
        "train a SyncNet", "latentsync.cli.train:train_syncnet", "latentsync.cli.main:training_parser"
    ),
    "train unet": Command("train a U-Net", "latentsync.cli.train:train_unet", "latentsync.cli.main:training_parser"),
    "eval syncnet": Command(
        "measure the accuracy of a SyncNet",
        "latentsync.cli.eval:evaluate_syncnet",
        "latentsync.cli.eval:evaluation_parser",
    ),
    "profile": Command(
        "show where the time of one lip-sync goes",
        "latentsync.cli.profile:run_profiler",
        "latentsync.cli.profile:profiler_parser",
    ),
    "bench": Command(
        "measure speed and compare with an earlier measurement",
        "latentsync.cli.bench:run_benchmark",
        "latentsync.cli.bench:benchmark_parser",
    ),
    "doctor": Command(
        "check the installation and name what is missing",
        "latentsync.cli.doctor:run_doctor",
        "latentsync.cli.doctor:doctor_parser",
    ),
    **{
        name: Command(
            summary,
            "latentsync.checkpoints.command:main",
            "latentsync.checkpoints.command:checkpoints_parser",
            (name,),
        )
        for name, summary in (
            ("fetch", "download weights"),
            ("verify", "compare the checksums of weights"),
            ("list", "list weights and where they are"),
        )
    },
    "completion": Command(
        "print a completion script for bash, zsh or fish",
        "latentsync.cli.main:print_completion",
        "latentsync.cli.main:completion_parser",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code; 2 for an unknown one."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    called = Path(sys.argv[0]).name
    program = "python -m latentsync" if called == "__main__.py" else called
    if words[:1] == ["--version"]:
        sys.stdout.write(f"latentsync {latentsync.__version__}\n")
        return 0
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return _call(COMMANDS[name], name, words[length:], program)
    if words[:1] in ([], ["-h"], ["--help"]):
        sys.stdout.write(_usage(program))
        return 0 if words else 2
    group = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if group and words[1:2] in (["-h"], ["--help"]):
        sys.stdout.write(_usage(program, group))
        return 0
    expected = ", ".join(group or COMMANDS)
    sys.stderr.write(f"{program}: unknown command {' '.join(words[: 2 if group else 1])!r}; expected {expected}\n")
    return 2


def print_completion(arguments: Sequence[str] | None = None) -> int:
    """Print the completion script of a shell; returns the exit code."""
    options = completion_parser().parse_args(arguments)
    from shtab import complete  # type: ignore[import-not-found, unused-ignore]

    parser = argparse.ArgumentParser(prog="latentsync", description="Lip-sync videos to speech.")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers()
    groups: dict[str, Any] = {}
    for name, command in COMMANDS.items():
        target, (*group, last) = commands, name.split(" ")
        if group:
            if group[0] not in groups:
                groups[group[0]] = commands.add_parser(group[0], help=f"{group[0]} ...").add_subparsers()
            target = groups[group[0]]
        made = _resolve(command.parser)()
        if command.prefix:
            made = _subparser(made, command.prefix[0])
        target.add_parser(last, help=command.summary, parents=[made], add_help=False, conflict_handler="resolve")
    sys.stdout.write(complete(parser, options.shell) + "\n")
    return 0


def completion_parser() -> argparse.ArgumentParser:
    """The parser of ``latentsync completion``."""
    parser = argparse.ArgumentParser(
        description="Print a completion script. For bash: latentsync completion bash "
        "> ~/.local/share/bash-completion/completions/latentsync"
    )
    parser.add_argument("shell", choices=_SHELLS)
    return parser


def training_parser() -> argparse.ArgumentParser:
    """What a shell can complete of the training commands: configuration files and ``--device``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", nargs="*", metavar="CONFIG").complete = {  # type: ignore[attr-defined]
        "bash": "_shtab_compgen_files",
        "zsh": "_files",
        "fish": "",
    }
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"))
    return parser


def _subparser(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    (subparsers,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    chosen: argparse.ArgumentParser = subparsers.choices[name]
    return chosen


def _call(command: Command, name: str, arguments: list[str], program: str) -> int:
    if command.prefix:
        set_program_name(program)
    else:
        set_program_name(f"{program} {name}")
    return int(_resolve(command.entry)([*command.prefix, *arguments]))


def _resolve(path: str) -> Callable[..., Any]:
    module, function = path.split(":")
    resolved: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return resolved


def _usage(program: str, names: Sequence[str] | None = None) -> str:
    chosen = {name: COMMANDS[name] for name in names or COMMANDS}
    width = max(map(len, chosen))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in chosen.items()]
    return "\n".join(
        [
            f"usage: {program} COMMAND [OPTIONS]",
            "",
            "Lip-sync videos to speech.",
            "",
            "commands:",
            *lines,
            "",
            f"{program} COMMAND --help lists the options of a command, {program} --version prints the version.",
            "",
        ]
    )
