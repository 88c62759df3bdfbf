"""Load by wrk, which can count the responses of each client with a thread for each connection."""

import json
import math
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SCRIPT: Final = Path(__file__).with_name("replay.lua")
WRK: Final = shutil.which("wrk")

PATIENCE: Final = 30
"""Seconds after which wrk counts a request as an error."""
COUNTED_REQUESTS: Final = 100
"""The number of different requests when clients are counted: each thread of wrk has a copy."""


@dataclass(frozen=True)
class Run:
    """The responses in a number of seconds; latencies are in milliseconds."""

    seconds: float
    answers: int
    """Responses with a status of 2xx."""
    errors: int
    """Other responses, broken connections and timeouts."""
    p50: float
    p99: float
    worst: float
    """The longest wait; the whole duration, if a client received no response."""
    per_client: tuple[int, ...]
    """The responses of each thread."""

    @property
    def rate(self) -> float:
        """Responses per second."""
        return self.answers / self.seconds


def load(
    port: int, requests: Sequence[bytes], clients: int, seconds: float, *, count: bool = False
) -> Run:
    """Put load on a server; with ``count``, ``per_client`` has the responses of each client."""
    with tempfile.NamedTemporaryFile(suffix=".requests") as file:
        file.write(b"\0".join(requests[:COUNTED_REQUESTS] if count else requests))
        file.flush()
        process = subprocess.Popen(
            [
                *(WRK or "wrk", "--threads", str(clients if count else 1)),
                *("--connections", str(clients), "--duration", str(math.ceil(seconds) + 1)),
                *("--timeout", str(PATIENCE), "--script", str(SCRIPT)),
                *(f"http://127.0.0.1:{port}", "--", file.name),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # wrk only accepts whole seconds
        output, _ = process.communicate(timeout=2 * PATIENCE)
    found = json.loads(output.rstrip().rpartition("\n")[2])
    per_client = tuple(found["clients"])
    worst = found["worst"] / 1000 if min(per_client) else 1000 * found["seconds"]
    return Run(
        seconds=found["seconds"],
        answers=found["requests"] - found["refused"],
        errors=found["refused"] + found["broken"],
        p50=found["p50"] / 1000,
        p99=found["p99"] / 1000,
        worst=worst,
        per_client=per_client,
    )
