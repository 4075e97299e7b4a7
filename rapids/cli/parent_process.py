"""The parent process of `rapids run`: keeps its worker processes running, and restarts them when their code changes."""

import asyncio
import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from rapids.cli.listeners import ListenerError, listening
from rapids.cli.log_lines import log_to_stderr
from rapids.cli.summary import RunningRouter, show_running
from rapids.cli.worker_process import (
    FAILED,
    GIVE_BACK,
    NOT_STARTED,
    REPORT_EVERY,
    STOP_SIGNALS,
    Message,
    RunOptions,
    StopRequest,
    run_child,
)
from rapids.clients import RedisClient, open_client
from rapids.embedded import is_embedded_url, open_embedded
from rapids.environment import Environment
from rapids.inspection import GroupReader
from rapids.metrics import Metrics, ProcessReadings

__all__ = ["run_parent"]

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds before a child that ended is started again. They double with each time."""

STABLE_AFTER = 30.0
"""Seconds. After a child ran for longer than this, its next end counts as the first one."""

SILENT_AFTER = 10 * REPORT_EVERY
"""Seconds without a report after which a child's event loop counts as blocked."""

KILL_AFTER = 3.0
"""Seconds more than a child takes at most to stop. It ends by itself before that, unless it is stopped or hangs."""

_logger = logging.getLogger("rapids")
_spawn = multiprocessing.get_context("spawn")


class Child:
    """A worker process, and what it has reported."""

    def __init__(
        self, number: int, options: RunOptions, heard: Callable[[Message], None], before: "Child | None"
    ) -> None:
        self.number = number
        self.started_at: float = time.monotonic()
        self.ended: asyncio.Event = asyncio.Event()
        self.last: Message = Message()
        """The last thing it reported."""
        self.heard_at: float = self.started_at
        self._before = ProcessReadings(starts=0) if before is None else before.counted
        self._readings = ProcessReadings()
        self._heard = heard
        self._reader, writer = _spawn.Pipe(duplex=False)
        readings, sent_to = (None, None) if options.metrics is None else _spawn.Pipe(duplex=False)
        arguments = options, writer, sent_to
        self._process = _spawn.Process(target=run_child, args=arguments, name=f"rapids-run-{number}")
        # A signal that comes before the child can take it waits until then, instead of ending it with a traceback.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        writer.close()
        if sent_to is not None:
            sent_to.close()
        self.pid: int | None = self._process.pid
        loop = asyncio.get_running_loop()
        loop.add_reader(self._reader, self._hear, self._reader)
        reading = None
        if readings is not None:  # in a thread, since many of them do not fit into a pipe at once
            reading = threading.Thread(target=self._read, args=(readings,), name=f"rapids-read-{number}", daemon=True)
            reading.start()
        threading.Thread(target=self._wait, args=(loop, reading), name=f"rapids-run-{number}", daemon=True).start()

    @property
    def counted(self) -> ProcessReadings:
        """What it and those before it have counted, as of about a second ago: no counter falls when one restarts. Any
        thread may ask."""
        return self._before + self._readings

    @property
    def code(self) -> int:
        """Its exit code, below 0 for the number of a signal. After its end."""
        return self._process.exitcode or 0

    @property
    def how_it_ended(self) -> str:
        """For the log."""
        if self.code >= 0:
            return f"ended with exit code {self.code}"
        try:
            name = signal.Signals(-self.code).name
        except ValueError:
            name = f"signal {-self.code}"
        return f"was killed by {name}" + (", perhaps since memory ran out" if name == "SIGKILL" else "")

    def ask_to_stop(self) -> None:
        if not self.ended.is_set():
            self._process.terminate()

    def kill(self) -> None:
        if not self.ended.is_set():
            self._process.kill()

    async def stop(self, patience: float) -> bool:
        """Wait for its end after `ask_to_stop`, and kill it when that takes too long. Returns whether it was killed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.ended.wait()
                return False
        _logger.error("process %d (pid %d) did not stop in time, and is killed", self.number, self.pid)
        self.kill()
        await self.ended.wait()
        return True

    def _hear(self, reader: Connection) -> None:
        try:
            message: Message = reader.recv()
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(reader)
            return
        self.last, self.heard_at = message, time.monotonic()
        self._heard(message)

    def _read(self, readings: Connection) -> None:
        with suppress(EOFError, OSError), readings:  # the child has ended
            while True:
                self._readings = readings.recv()

    def _wait(self, loop: asyncio.AbstractEventLoop, reading: threading.Thread | None) -> None:
        self._process.join()
        if reading is not None:  # a process that the child forked may keep the pipe open
            reading.join(REPORT_EVERY)
        with suppress(RuntimeError):  # the event loop has ended
            loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._reader)
        self._reader.close()
        self.ended.set()


class Generation:
    """The children from one change of the code to the next."""

    def __init__(self) -> None:
        self.started: asyncio.Event = asyncio.Event()
        """One of them has started, so the code can be run."""
        self.over: asyncio.Event = asyncio.Event()


class Parent:
    """Keeps so many children running until it is asked to stop."""

    def __init__(self, options: RunOptions, stop: StopRequest) -> None:
        self._options = self._of_children = options
        self._stop = stop
        self._children: dict[int, Child] = {}
        self._generation = Generation()
        self._shown: tuple[RunningRouter, ...] = ()
        self._stop_limit = GIVE_BACK
        self._exit_code = 0
        self._metrics = Metrics(self._readings)
        self._client: RedisClient | None = None

    async def run(self) -> int:
        """Run until a stop is asked for, or until it is known that the children cannot start. Returns the exit code."""
        self._stop.attach()
        options = self._options
        async with AsyncExitStack() as parts:
            await parts.enter_async_context(
                listening(options.health, options.metrics, live=self._live, ready=self._ready, shown=self._metrics)
            )
            if options.metrics is not None:
                if is_embedded_url(options.url):  # this process needs the server of its children
                    server = await parts.enter_async_context(open_embedded(options.url))
                    self._of_children = replace(options, url=server.url)
                self._client = await parts.enter_async_context(open_client(self._of_children.url))
            keeping = [asyncio.create_task(self._keep(number)) for number in range(1, options.processes + 1)]
            if options.reload is not None:
                keeping.append(asyncio.create_task(self._reload_on_changes(options.reload)))
            try:
                await self._stop.asked.wait()
                if not self._exit_code:
                    self._stop.log(self._stop_limit - GIVE_BACK)
                await self._end_children(list(self._children.values()))
            finally:
                for task in keeping:
                    task.cancel()
                await asyncio.wait(keeping)
        return self._exit_code

    def kill_all(self) -> None:
        """Kill all children."""
        for child in self._children.values():
            child.kill()

    async def _keep(self, number: int) -> None:
        """Keep one child running: after its end, another one follows."""
        failures = 0
        while not self._stop.asked.is_set():
            generation = self._generation
            if number > 1 and not generation.started.is_set():  # so that an error is reported once
                await self._first_of(generation.started, generation.over)
                continue
            before = self._children.get(number)
            child = self._children[number] = Child(number, self._of_children, self._heard(generation), before)
            await child.ended.wait()
            if self._stop.asked.is_set():
                return
            if generation is not self._generation:
                failures = 0
            elif child.code > 0 and not generation.started.is_set():
                if self._options.reload is None:
                    self._exit_code = child.code
                    self._stop.ask()
                    return
                _logger.error("the processes cannot start: waiting for a change of the code")
                await self._first_of(generation.over)
            else:
                failures = 1 if time.monotonic() - child.started_at > STABLE_AFTER else failures + 1
                pause = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE)
                _logger.error(
                    "process %d (pid %d) %s: another one starts in %.1f s",
                    number,
                    child.pid,
                    child.how_it_ended,
                    pause,
                    extra={"exit_code": child.code},
                )
                await self._first_of(generation.over, timeout=pause)

    def _heard(self, generation: Generation) -> Callable[[Message], None]:
        def heard(message: Message) -> None:
            if message.started:
                generation.started.set()
                return
            self._stop_limit = message.stop_limit
            if message.running != self._shown:
                self._shown = message.running
                if self._client is not None:
                    self._metrics.groups = GroupReader(self._client, message.groups)
                show_running(self._options.log_format, self._options.url, message.running, self._options.processes)

        return heard

    async def _first_of(self, *events: asyncio.Event, timeout: float | None = None) -> None:
        """Wait for one of the events, or for the stop."""
        waits = [asyncio.create_task(event.wait()) for event in (*events, self._stop.asked)]
        try:
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _end_children(self, children: list[Child]) -> None:
        """Stop all children at the same time."""
        for child in children:
            child.ask_to_stop()
        killed = await asyncio.gather(*(child.stop(self._stop_limit + KILL_AFTER) for child in children))
        if any(killed) or any(child.code == FAILED for child in children):
            self._exit_code = self._exit_code or FAILED

    async def _reload_on_changes(self, folders: tuple[str, ...]) -> None:
        from watchfiles import (
            Change,
            PythonFilter,
            awatch,  # pyright: ignore[reportUnknownVariableType] - it also takes events of another library
        )

        changed: AsyncGenerator[set[tuple[Change, str]], None] = awatch(
            *folders, watch_filter=PythonFilter(), stop_event=self._stop.asked
        )
        async for changes in changed:
            names = sorted({Path(path).name for _, path in changes})
            _logger.warning("%s changed: restarting", ", ".join(names[:5]) + (", ..." if len(names) > 5 else ""))
            before, self._generation = self._generation, Generation()
            children = list(self._children.values())
            for child in children:
                child.ask_to_stop()
            before.over.set()
            await asyncio.gather(*(child.stop(self._stop_limit + KILL_AFTER) for child in children))

    def _readings(self) -> dict[str, ProcessReadings]:
        """What the children have counted, by their number. A thread asks."""
        return {str(number): child.counted for number, child in list(self._children.items())}

    async def _live(self) -> bool:
        """No child's event loop is blocked. This does not depend on Redis."""
        now = time.monotonic()
        return not any(
            child.last.started and not child.ended.is_set() and now - child.heard_at > SILENT_AFTER
            for child in self._children.values()
        )

    async def _ready(self) -> bool:
        children = self._children.values()
        return (
            len(children) == self._options.processes
            and all(child.last.ready and not child.ended.is_set() for child in children)
            and await self._live()
        )


def run_parent(options: RunOptions) -> int:
    """Run the parent process. Returns its exit code."""
    log_to_stderr(options.log_format, options.log_level)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it logs every change, too
    Environment().warn_of_unknown()
    stop = StopRequest(is_child=False, limit=None)  # it ends when its children have ended
    parent = Parent(options, stop)
    stop.take_signals(parent.kill_all)
    try:
        return asyncio.run(parent.run())
    except ListenerError as error:
        _logger.critical("%s", error)
        return NOT_STARTED
