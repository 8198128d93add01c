"""Commands that messages recommend, in the form that works for this installation and working directory.

A checkout is set up by its scripts, an installed wheel by pip and the `latentsync` command. Every message that names a
command takes it from here.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

from latentsync.runtime.resources import IS_CHECKOUT, REPOSITORY

_SETUP_GROUPS = ("1.5", "1.6", "train")


def program_command(*arguments: str) -> str:
    """The shell command that runs ``latentsync`` with these arguments from the current folder."""
    return f"{_program()} {shlex.join(arguments)}".rstrip()


def fetch_command(name: str, root: str | os.PathLike[str] | None = None) -> str:
    """The shell command that downloads a checkpoint.

    Args:
        name: a checkpoint or a group of them.
        root: checkpoint folder to download to; None takes the default folder.
    """
    if root is None and _uses_setup_script() and name in _SETUP_GROUPS:
        return f"{_script('setup_env.sh')} --weights {name}"
    folder = [] if root is None else ["--checkpoints", str(root)]
    return program_command("fetch", name, *folder)


def install_command(extra: str = "") -> str:
    """The shell command that installs what the package needs.

    Args:
        extra: "train", "insightface" or "dev"; "" for the base requirements.
    """
    if _uses_setup_script():
        return _script("setup_env.sh") + (f" --{extra}" if extra else "")
    if IS_CHECKOUT:
        base = REPOSITORY / "requirements.txt"
        file = REPOSITORY / f"requirements-{extra}.txt" if extra else base
        return f"{_python()} -m pip install -c {shlex.quote(_shown(base))} -r {shlex.quote(_shown(file))}"
    package = f"'latentsync[{extra}]'" if extra else "--force-reinstall latentsync"
    return f"{_python()} -m pip install {package}"


def _uses_setup_script() -> bool:
    """Whether this process runs in the checkout's own environment, or could: there is none yet."""
    venv = REPOSITORY / ".venv"
    return IS_CHECKOUT and (not venv.exists() or Path(sys.prefix).resolve() == venv.resolve())


def _script(name: str) -> str:
    return f"./{name}" if Path.cwd() == REPOSITORY else shlex.quote(str(REPOSITORY / name))


def _program() -> str:
    script = Path(sys.executable).with_name("latentsync")
    if script.is_file():
        return "latentsync" if shutil.which("latentsync") == str(script) else shlex.quote(_shown(script))
    change = "" if not IS_CHECKOUT or Path.cwd() == REPOSITORY else f"cd {shlex.quote(str(REPOSITORY))} && "
    return f"{change}{_python()} -m latentsync"


def _python() -> str:
    on_path = shutil.which("python")
    return "python" if on_path == sys.executable else shlex.quote(_shown(Path(sys.executable)))


def _shown(path: Path) -> str:
    """The path, relative to the current folder where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
