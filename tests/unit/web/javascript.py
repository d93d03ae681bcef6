"""The browser's client in a JavaScript runtime, for calls from tests."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DENO = Path(sys.executable).parent / "deno"
BRIDGE = Path(__file__).with_name("bridge.js")


class JavaScriptError(Exception):
    """What a call threw: the error's name and message."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


class JavaScript:
    """A process that calls the client's modules."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def __call__(self, call: str, **arguments: Any) -> Any:
        """Return the value of a call in bridge.js; bytes go as base64."""
        packed = {
            name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for name, value in arguments.items()
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"call": call, **packed}) + "\n")
        self._process.stdin.flush()
        reply = json.loads(self._process.stdout.readline())
        if "error" in reply:
            raise JavaScriptError(reply["error"], reply["message"])
        return reply["value"]


@contextmanager
def running(folder: Path) -> Iterator[JavaScript]:
    """A process that keeps what it compiles in a folder."""
    with subprocess.Popen(
        [DENO, "run", "--no-config", "--allow-read", "--allow-net=127.0.0.1", BRIDGE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "DENO_DIR": str(folder), "DENO_NO_UPDATE_CHECK": "1"},
    ) as process:
        yield JavaScript(process)
        assert process.stdin is not None
        process.stdin.close()
