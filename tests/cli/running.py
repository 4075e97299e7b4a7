"""`rapids run` in processes of its own, for tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.embedded.scripts import is_gone
from tests.fastapi.helpers import until
from tests.support import SOON, interruptible

ROOT = Path(__file__).parents[2]

WORKERS = """
import asyncio, logging, os, time
from typing import Annotated
from contextlib import asynccontextmanager
from pathlib import Path
from rapids import BaseEvent, Depends, EventEmitter, EventRouter
from rapids.background import lifespan_value
from rapids.exceptions import NonRetryableError

class RunNoted(BaseEvent):
    n: int

class RunAnswered(BaseEvent):
    n: int

stream = os.environ["RUN_STREAM"]
emitter = EventEmitter(stream=stream)
router = EventRouter(stream=stream, group="notes", concurrency=4)
answers = EventRouter(stream=stream, group="answers", block_ms=200)
log = logging.getLogger(__name__)

def note(*words):
    with open("notes", "a") as file:
        print(os.getpid(), *words, file=file)

@router.on(RunNoted)
async def handle(event: RunNoted, same: EventEmitter) -> None:
    assert same is emitter
    if event.n < 0:
        note("began", event.n)
    match event.n:
        case -1:
            await asyncio.sleep(3600)
        case -2:
            while True: pass
        case -3:
            time.sleep(3600)
        case -4:
            while not Path("go").exists():
                await asyncio.sleep(0.01)
            note("ended", event.n)
        case -5:
            raise NonRetryableError("the note is torn")
    await emitter.emit(RunAnswered(n=event.n))

@answers.on(RunAnswered)
async def answered(event: RunAnswered, given: Annotated[str, Depends(lifespan_value)]) -> None:
    log.info("answered %d", event.n)
    note("answered", event.n, given)

@asynccontextmanager
async def lifespan():
    note("opened", type(asyncio.get_running_loop()).__module__.partition(".")[0])
    yield "a pool"
    note("closed")

routers = [router, answers, emitter]
"""


class RunningCommand:
    """A `rapids run` with the workers above, in a folder of its own."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.workers = folder / "run_workers.py"

    @property
    def said(self) -> str:
        """All its output so far."""
        return (self.folder / "output").read_text()

    def says(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until its output has this so often."""

        def found() -> list[str]:
            matches = [match[0] for match in re.finditer(pattern, self.said)]
            assert self.process.poll() is None or len(matches) >= times, self.said
            return matches if len(matches) >= times else []

        return until(found)

    def notes(self, *words: object) -> list[int]:
        """The processes that noted these words, also those of an earlier command in the folder."""
        path, wanted = self.folder / "notes", " ".join(map(str, words))
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(pid) for pid, _, rest in (line.partition(" ") for line in lines) if rest == wanted]

    def children(self) -> list[int]:
        """The worker processes that it has started."""
        listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
        found = [line.split(maxsplit=2) for line in listed.splitlines() if "multiprocessing.spawn" in line]
        return [int(pid) for pid, parent, _ in found if int(parent) == self.process.pid]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code after a signal, when it and its children have ended."""
        children = self.children()  # those of a killed parent are nobody's
        self.process.send_signal(number)
        code = self.process.wait(SOON)
        until(lambda: all(map(is_gone, children)), SOON)
        return code


@contextmanager
def rapids_run(
    folder: Path,
    url: str,
    *options: str,
    targets: str = "run_workers:routers",
    lifespan: str | None = "run_workers:lifespan",
    stream: str = "run",
) -> Iterator[RunningCommand]:
    """Run it during the block. Afterwards none of its processes is left."""
    folder.mkdir(exist_ok=True)
    (folder / "run_workers.py").write_text(WORKERS)
    if lifespan is not None:
        options += ("--lifespan", lifespan)
    with interruptible(), (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "rapids.cli", "run", *targets.split(), "--url", url, *options],
            env={**os.environ, "PYTHONPATH": str(ROOT), "RUN_STREAM": stream},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield RunningCommand(process, folder)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
