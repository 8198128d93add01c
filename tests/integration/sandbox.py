"""A checkout in a temporary folder: the real shell scripts, tiny requirement files, a package index of its own."""

import hashlib
import os
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def write_wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = ()) -> Path:
    """Write an importable wheel `name`-`version` with one module and the given dependencies."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
    files = {
        f"{name}.py": f'VERSION = "{version}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in files.items():
            wheel.writestr(member, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{member},,\n" for member in [*files, f"{info}/RECORD"]))
    return path


@dataclass
class Sandbox:
    """Root folder of the temporary checkout, and how to run its scripts without network."""

    root: Path

    @property
    def wheels(self) -> Path:
        """Folder that pip takes packages from."""
        return self.root / "wheels"

    def environment(self, **extra: str) -> dict[str, str]:
        """Return the environment for a script: no index but the sandbox's own, no GPU unless a test fakes one."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "TORCH_", "PYTHON"))}
        own = {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_FIND_LINKS": self.wheels.as_uri(),
            "PIP_INDEX_URL": (self.root / "no-index").as_uri(),
        }
        return kept | own | extra

    def run(
        self, script: str, *arguments: str, cwd: Path | None = None, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script of the sandbox and return what it printed; the exit status is left to the caller."""
        return subprocess.run(
            [str(self.root / script), *arguments],
            cwd=cwd or self.root,
            env=self.environment(**extra),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def installed(self, package: str) -> str | None:
        """Return the version of `package` in the sandbox's .venv, None when it is not there."""
        found = list((self.root / ".venv").glob(f"lib/python3*/site-packages/{package}-*.dist-info"))
        return found[0].name.removesuffix(".dist-info").split("-")[1] if found else None

    def fingerprint(self) -> str:
        """Return a digest of every file's name, size and time of change in .venv."""
        lines = [
            f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}"
            for path in sorted((self.root / ".venv").rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def make_sandbox(root: Path) -> Sandbox:
    """Copy the scripts to `root` and give them small requirement files of the same names and kinds."""
    sandbox = Sandbox(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / "scripts").mkdir()
    for script in ("setup_env.sh", "inference.sh", "run_tests.sh", "scripts/lib.sh"):
        shutil.copy2(REPOSITORY / script, root / script)
    (root / "requirements.txt").write_text("torch==2.13.0\nfirst==1.0\n")
    (root / "requirements-nodeps.txt").write_text("second==1.0\n")
    (root / "requirements-dev.txt").write_text("third==1.0\n")
    (root / "requirements-train.txt").write_text("fourth==1.0\n")
    write_wheel(sandbox.wheels, "torch", "2.13.0")
    write_wheel(sandbox.wheels, "first", "1.0")
    write_wheel(sandbox.wheels, "second", "1.0", requires=("unwanted",))
    write_wheel(sandbox.wheels, "third", "1.0")
    write_wheel(sandbox.wheels, "fourth", "1.0")
    return sandbox
