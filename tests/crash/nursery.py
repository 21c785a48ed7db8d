"""Where replicas are born: a process that has imported everything and forks a victim when it is asked to.

A fork costs a tenth of a start, and gives a process of its own all the same, which kill -9 ends like any other. Run as
`python -m tests.crash.nursery`; it is asked over standard input and tells over standard output, a JSON object a line:

* `{"start": name, "environ": {…}, "log": path}` is answered by `{"started": name, "pid": n}`;
* `{"signal": number, "pid": n}` is sent if that process has not ended;
* whenever one has ended, `{"ended": n}` is told.

When its standard input ends, it kills what still lives, and ends.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from tests.crash import victim

LATE_IMPORTS = (
    "aiohttp",
    "alembic.command",
    "alembic.runtime.migration",
    "click",
    "psycopg",
    "slack_sdk.web.async_client",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "uvicorn.lifespan.off",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "uvloop",
)
"""What a victim imports while it starts; what is not installed here is left out."""


def main() -> None:
    for name in LATE_IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    woken, waker = os.pipe()
    for end in (woken, waker):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    living: set[int] = set()
    unread = b""
    try:
        while True:
            ready, _, _ = select.select([0, woken], [], [])
            if woken in ready:
                os.read(woken, 4096)
                _reap(living)
            if 0 in ready:
                if not (chunk := os.read(0, 65536)):
                    return
                *lines, unread = (unread + chunk).split(b"\n")
                for line in lines:
                    _do(json.loads(line), living)
    finally:
        for pid in living:
            os.kill(pid, signal.SIGKILL)


def _do(asked: Mapping[str, Any], living: set[int]) -> None:
    if "signal" in asked:
        if asked["pid"] in living:
            os.kill(asked["pid"], asked["signal"])
        return
    pid = os.fork()
    if pid == 0:
        _be_a_victim(asked["environ"], Path(asked["log"]))
    living.add(pid)
    _tell(started=asked["start"], pid=pid)


def _reap(living: set[int]) -> None:
    while living:
        pid, _ = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        living.discard(pid)
        _tell(ended=pid)


def _tell(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def _be_a_victim(environ: Mapping[str, str], log: Path) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        written, nothing = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.open(os.devnull, os.O_RDWR)
        for source, target in ((nothing, 0), (nothing, 1), (written, 2)):
            os.dup2(source, target)
        os.environ.clear()
        os.environ.update(environ)
        victim.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
