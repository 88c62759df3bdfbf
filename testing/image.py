"""A Dockerfile, parsed as by a builder and executed in a folder, without Docker.

Each stage is the folder itself, so that a path is the same in all of them; a stage that is over is
put aside. In place of a base image there is the Python that runs the tests.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import psutil

from testing.baking import succeeded

IS_ROOT: Final = sys.platform != "win32" and os.geteuid() == 0
# A user with these rights may also isolate a process, as Docker does.
SANDBOXED: Final = (
    IS_ROOT
    and sys.platform == "linux"
    and shutil.which("unshare") is not None
    and subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0
)

# The variables by which packages are found; a build gets no others of this machine.
NETWORK: Final = re.compile(
    r"PIP_|UV_(DEFAULT_)?INDEX|SSL_CERT|(https?|all|no)_proxy$", re.IGNORECASE
)

ROOTED: Final = re.compile(r"(?<![\w.])/(?=(?:app|data)\b)")
"""The paths of a service's image."""


@dataclass(frozen=True)
class Stage:
    """A stage: the instructions from one FROM to the next."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str:
        """Return the last value of an instruction, which is the valid one."""
        return [value for name, value in self.steps if name == instruction][-1]

    @property
    def arguments(self) -> dict[str, str]:
        """The build arguments, with their defaults."""
        return pairs([value for name, value in self.steps if name == "ARG"], {})

    @property
    def labels(self) -> dict[str, str]:
        """The labels."""
        return pairs([value for name, value in self.steps if name == "LABEL"], self.arguments)


def read(text: str) -> list[Stage]:
    """Read a Dockerfile."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    stages: list[Stage] = []
    for line in joined.split("\n"):
        instruction, _, value = line.partition(" ")
        if instruction == "FROM":
            base, _, name = value.partition(" AS ")
            stages.append(Stage(base, name))
        else:
            stages[-1].steps.append((instruction, value.strip()))
    return stages


def words(text: str, variables: Mapping[str, str]) -> Iterator[str]:
    r"""Split as BuildKit does: `$x`, `${x}`; in quotes, only `\"`, `\$` and `\\` escape."""
    word, quoted = "", False
    token = re.compile(r"\\(.)|\$(?:\{(\w*)\}?|(\w+))|(.)")
    for match in token.finditer(text + " "):
        escaped, braced, plain, other = match.groups()
        if escaped:
            word += escaped if escaped in '"$\\' or not quoted else f"\\{escaped}"
        elif braced or plain:
            word += variables[braced or plain]  # one that nobody has set is a mistake
        elif other == '"':
            quoted = not quoted
        elif other == " " and not quoted:
            if word:
                yield word
            word = ""
        else:
            word += other
    assert not quoted, text


def pairs(values: Iterable[str], variables: Mapping[str, str]) -> dict[str, str]:
    """Parse NAME=VALUE."""
    found = [word.partition("=") for value in values for word in words(value, variables)]
    assert all(equals for _, equals, _ in found), found
    return {name: value for name, _, value in found}


def sent(context: Path, target: Path) -> Path:
    """Copy the build context of a folder, without what `.dockerignore` excludes."""
    rules = []
    for line in (context / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            glob = re.escape(line.removeprefix("!"))
            glob = glob.replace(r"\*\*/", "(?:.+/)?").replace(r"\*", "[^/]*")
            rules.append((re.compile(glob), not line.startswith("!")))
    for file in filter(Path.is_file, context.rglob("*")):
        path = file.relative_to(context)
        names = [part.as_posix() for part in (path, *path.parents)]
        ignored = [ignores for rule, ignores in rules if any(map(rule.fullmatch, names))][-1:]
        if ignored != [True]:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target / path)
    return target


def networked() -> dict[str, str]:
    """Return the environment variables that a build needs to install packages."""
    return {name: value for name, value in os.environ.items() if NETWORK.match(name)}


def based_on(root: Path) -> dict[str, str]:
    """Put a Python with pip where an official image has it; return the environment of it."""
    local, prefix = root / "usr" / "local", Path(sys.base_prefix)
    if IS_ROOT and not all(folder.stat().st_mode & 0o001 for folder in (prefix, *prefix.parents)):
        # Only root can read it there: copy it, without installed packages.
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        ignore = shutil.ignore_patterns("site-packages", "test", "__pycache__")
        shutil.copytree(prefix / "lib" / name, local / "lib" / name, ignore=ignore)
        for library in (prefix / "lib").glob("libpython*"):
            shutil.copy2(library, local / "lib")
        (local / "bin").mkdir()
        shutil.copy2(prefix / "bin" / name, local / "bin")
        for alias in ("python", "python3"):
            (local / "bin" / alias).symlink_to(name)
        command = [str(local / "bin" / "python"), "-m", "ensurepip", "--default-pip"]
    else:
        command = [sys.executable, "-m", "venv", str(local)]
    environment = {
        "PATH": f"{local / 'bin'}:/usr/bin:/bin",
        "LD_LIBRARY_PATH": str(local / "lib"),
        "HOME": "/",
    }
    succeeded(
        subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    )
    return environment


@dataclass
class Image:
    """An image that a Dockerfile describes."""

    root: Path
    stages: list[Stage]
    environment: dict[str, str] = field(default_factory=dict)
    """The environment variables."""
    base: dict[str, str] = field(default_factory=dict)
    """What is there beside it."""
    folder: Path = field(default_factory=Path)

    @classmethod
    def built(cls, context: Path, folder: Path) -> "Image":
        """Execute the Dockerfile of ``context``; the result is in ``folder``."""
        stages = read((context / "Dockerfile").read_text(encoding="utf-8"))
        image = cls(folder / "root", stages)
        given = sent(context, folder / "context")
        for stage in stages:
            if image.root.exists():
                image.root.rename(folder / stages[stages.index(stage) - 1].name)
            image.root.mkdir()
            image.environment = {}
            image.base = based_on(image.root)
            for instruction, value in stage.steps:
                image._carry_out(instruction, value, given, folder)
        return image

    @property
    def user(self) -> tuple[int, int]:
        """The numbers of the user and the group that it runs as."""
        user, group = map(int, self.placed(self.stages[-1].last("USER")).split(":"))
        return user, group

    @property
    def volumes(self) -> list[Path]:
        """The volumes."""
        steps = self.stages[-1].steps
        found = [json.loads(value) for name, value in steps if name == "VOLUME"]
        return [Path(self.placed(path)) for paths in found for path in paths]

    @property
    def command(self) -> list[str]:
        """The command."""
        command: list[str] = json.loads(self.stages[-1].last("CMD"))
        return command

    @property
    def health_check(self) -> list[str]:
        """The command of the health check."""
        command: list[str] = json.loads(self.stages[-1].last("HEALTHCHECK").partition(" CMD ")[2])
        return command

    def placed(self, text: str) -> str:
        """Translate the paths of the image into those of the folder."""
        if not IS_ROOT:
            text = text.replace("10001:10001", f"{os.getuid()}:{os.getgid()}")
        return ROOTED.sub(f"{self.root}/", text)

    def _carry_out(self, instruction: str, value: str, context: Path, folder: Path) -> None:
        match instruction:
            case "RUN":
                done = subprocess.run(
                    ["/bin/sh", "-c", self.placed(value)],
                    cwd=self.folder if self.folder.is_dir() else self.root,
                    env={
                        **self.base,
                        "HOME": str(self.root / "root"),
                        **networked(),
                        **self.environment,
                    },
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    encoding="utf-8",
                    check=False,
                )
                succeeded(done)
            case "ENV":
                self.environment |= pairs([self.placed(value)], self.base | self.environment)
            case "WORKDIR":
                self.folder = Path(self.placed(value))
                self.folder.mkdir(parents=True, exist_ok=True)
            case "COPY":
                *sources, target = value.split()
                source = context
                if sources[0].startswith("--from="):
                    source = folder / sources.pop(0).removeprefix("--from=")
                self._copy([source / path.lstrip("/") for path in sources], target)
            case (
                "ARG"
                | "CMD"
                | "EXPOSE"
                | "HEALTHCHECK"
                | "LABEL"
                | "STOPSIGNAL"
                | "USER"
                | "VOLUME"
            ):
                pass  # they say how it is run
            case _:
                raise NotImplementedError(instruction)

    def _copy(self, sources: list[Path], target: str) -> None:
        place = self.folder / self.placed(target)
        found = [file for source in sources for file in source.parent.glob(source.name)]
        assert found, sources
        assert len(sources) == 1 or target.endswith("/"), target
        for file in found:
            if file.is_dir():
                shutil.copytree(file, place, symlinks=True, dirs_exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, place)

    def confined(self, *command: str, read_only: bool = True) -> list[str]:
        """Return a command as an engine runs it: process 1 of its user, on a read-only root."""
        if not SANDBOXED:
            return list(command)
        user, group = self.user
        mounts = 'while [ "$1" != -- ]; do mount --bind "$1" "$1" && shift; done; shift; '
        seal = "mount -o remount,bind,ro / && " if read_only else ""
        return [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("sh", "-euc", f'{mounts}{seal}exec "$@"', "sh", *map(str, self.volumes), "--"),
            *("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"),
            *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
            *command,
        ]

    def run(
        self,
        *command: str,
        settings: Mapping[str, str] = MappingProxyType({}),
        read_only: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the image and wait for it."""
        return subprocess.run(
            self.confined(*command, read_only=read_only),
            cwd=self.folder,
            env={**self.base, **self.environment, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    @contextmanager
    def running(self, log: Path, **settings: str) -> Iterator["Container"]:
        """Run the image's own command for a while."""
        with (
            log.open("wb") as output,
            subprocess.Popen(
                self.confined(*self.command),
                cwd=self.folder,
                env={**self.base, **self.environment, **settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            ) as process,
        ):
            try:
                yield Container(process, log)
            finally:
                if process.poll() is None:
                    for each in psutil.Process(process.pid).children(recursive=True):
                        each.kill()
                    process.kill()


@dataclass(frozen=True)
class Container:
    """A running image."""

    outer: subprocess.Popen[bytes]
    log_file: Path

    def log(self) -> str:
        """Return its output."""
        return self.log_file.read_text(encoding="utf-8")

    def processes(self) -> list[psutil.Process]:
        """Return its processes, the first one first."""
        outer = psutil.Process(self.outer.pid)
        inner = outer.children(recursive=True)
        return inner if SANDBOXED else [outer, *inner]

    def stop(self, signal_: int, seconds: float) -> int:
        """Send its first process a signal; return its exit status."""
        self.processes()[0].send_signal(signal_)
        return self.outer.wait(seconds)
