"""A worker process of `rapids run`: routers, emitters and operations, from the start until a signal."""

import _thread
import asyncio
import faulthandler
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import NoReturn

from redis.exceptions import ResponseError

from rapids.background import (
    check_lifespan,
    dead_letter_queues,
    lifespan_running,
    operations_running,
    routers_running,
)
from rapids.cli.listeners import Address, Probe, listening
from rapids.cli.log_lines import LogFormat, LogLevel, log_to_stderr
from rapids.cli.summary import RunningRouter, show_running
from rapids.cli.targets import Found, find, find_lifespan
from rapids.clients import RedisClient, open_client, reach
from rapids.emitter import EventEmitter
from rapids.environment import Environment
from rapids.exceptions import RapidsError
from rapids.hooks import TelemetryHooks
from rapids.inspection import GroupReader, WatchedGroup
from rapids.metrics import Metrics, ProcessReadings, read_process
from rapids.readiness import Readiness
from rapids.redaction import Redactor
from rapids.router import ServerWarnings

__all__ = [
    "FAILED",
    "GIVE_BACK",
    "NOT_STARTED",
    "STOP_SIGNALS",
    "Message",
    "RunOptions",
    "StopRequest",
    "run_child",
    "run_worker",
]

FAILED = 1
"""The exit code of a process that ran and failed, or that did not stop in time."""
NOT_STARTED = 2
"""The exit code of a process that could not start: a wrong option, code that cannot be used, no Redis."""

GIVE_BACK = 10.0
"""Seconds after the time of running handlers: entries are released, operations end their step, the lifespan ends."""

REPORT_EVERY = 1.0
"""Seconds between two reports of a worker process to its parent, where probes are answered."""

HANGUP: int | None = getattr(signal, "SIGHUP", None)
STOP_SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM, *(() if HANGUP is None else (HANGUP,)))
"""Ctrl-C, the request of a process manager, and the end of the terminal (not on Windows)."""

MAX_FRAMES = 4

_logger = logging.getLogger("rapids")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `rapids run`."""

    targets: tuple[str, ...]
    url: str
    processes: int = 1
    lifespan: str | None = None
    dead_letters: bool = True
    redact: tuple[str, ...] = ()
    graceful_timeout: float | None = None
    uvloop: bool = False
    health: Address | None = None
    """Where probes are answered."""
    metrics: Address | None = None
    """Where Prometheus reads metrics."""
    reload: tuple[str, ...] | None = None
    """The folders whose changes restart the processes; None for no restarts."""
    otel: bool = False
    """Whether to configure the SDK of OpenTelemetry, and to report to it."""
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"


@dataclass(frozen=True, slots=True)
class Message:
    """What a worker process reports to its parent: first what it runs, and then that it has started, and its health."""

    running: tuple[RunningRouter, ...] = ()
    stop_limit: float = 0.0
    """Seconds that it takes at most to stop."""
    started: bool = False
    ready: bool = False
    groups: tuple[WatchedGroup, ...] = ()


class StopRequest:
    """A request to stop, from signals or from the end of the parent process. The second signal ends the process."""

    def __init__(self, *, is_child: bool, limit: float | None = GIVE_BACK) -> None:
        self.asked: asyncio.Event = asyncio.Event()
        self.limit = limit
        """Seconds after the request, when the process ends in any case; None for never."""
        self._is_child = is_child
        self._signal = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_asked = False

    def take_signals(self, at_once: Callable[[], object]) -> None:
        """Take `STOP_SIGNALS`, also while the event loop is blocked. On the second one, call `at_once` and exit.

        A child stops by SIGTERM only, any number of them: Ctrl-C in a terminal reaches its parent too, which passes it
        on, and so does a process manager that signals the whole group. SIGHUP never counts as the second one, since a
        terminal that is closed and its shell both send it. `nohup` ignores it, and so does this process then.
        """

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self._is_child and number != signal.SIGTERM:
                return
            if self._is_asked and not self._is_child:
                if number != HANGUP:
                    at_once()
                    _end("a second signal: ending without waiting for handlers")
                return
            self._signal = signal.Signals(number).name
            self.ask()

        for number in STOP_SIGNALS:
            if number != HANGUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, on_signal)
        if hasattr(signal, "pthread_sigmask"):  # the parent blocks them until here
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def attach(self) -> None:
        """Pass the request on to the running event loop."""
        self._loop = asyncio.get_running_loop()
        if self._is_asked:
            self.asked.set()

    def log(self, seconds: float) -> None:
        """Log why it stops, and how long running handlers may take."""
        if not self._is_child:
            _logger.info("stopping on %s: running handlers have %g s", self._signal, seconds)

    def ask(self) -> None:
        """Ask for the stop. Safe in signal handlers and other threads."""
        is_first, self._is_asked = not self._is_asked, True  # at once: the next signal may interrupt what follows
        if is_first and self.limit is not None:
            # Ends a process whose event loop is blocked. Not by `threading`, whose locks the interrupted code may hold.
            _thread.start_new_thread(_give_up, (self.limit,))
            faulthandler.dump_traceback_later(self.limit + 1, exit=True, file=2)  # also if one thread holds the GIL
        if (loop := self._loop) is not None:
            with suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(self.asked.set)


def run_worker(options: RunOptions, parent: Connection | None = None, sent_to: Connection | None = None) -> int:
    """Run one process until it is asked to stop. Returns its exit code.

    `parent`: where a child reports to. Without it, this is the only process. `sent_to`: where a child sends what it
    counts; None if nobody wants to know.
    """
    log_to_stderr(options.log_format, options.log_level)
    if parent is None:
        Environment().warn_of_unknown()
    stop = StopRequest(is_child=parent is not None)
    stop.take_signals(lambda: None)
    if parent is not None:
        threading.Thread(target=_watch_parent, args=(stop,), name="rapids-parent-watch", daemon=True).start()
    sys.path.insert(0, os.getcwd())
    try:
        with asyncio.Runner(loop_factory=_loop_factory(options)) as runner:
            return runner.run(_run(options, stop, parent, sent_to))
    except RapidsError as error:
        if options.log_format == "json" or error.__cause__ is not None:  # with the traceback of the user's own error
            _logger.critical("%s", error, exc_info=error.__cause__)
        else:
            sys.stderr.write(f"rapids: {error}\n")
        return NOT_STARTED


def run_child(options: RunOptions, parent: Connection, sent_to: Connection | None) -> None:
    """The main function of a child process."""
    sys.exit(run_worker(options, parent, sent_to))


def _give_up(seconds: float) -> None:
    """End the process after so long, and say where its main thread is: a handler may block the event loop there."""
    time.sleep(seconds)
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # pyright: ignore[reportPrivateUsage] - it is documented
    where = traceback.format_stack(frame, MAX_FRAMES)
    _end("not stopped in time: ending. The main thread is at\n" + "".join(where).rstrip())


def _end(why: str) -> NoReturn:
    """End the process, also if standard error is closed."""
    try:
        os.write(2, f"rapids: {why}\n".encode(errors="backslashreplace"))
    finally:
        os._exit(FAILED)


def _watch_parent(stop: StopRequest) -> None:
    """Ask for a stop when the parent process is gone, however it ended."""
    if (parent := multiprocessing.parent_process()) is not None:
        wait([parent.sentinel])
        _logger.warning("the parent process %d is gone: stopping", parent.pid)
        stop.ask()


def _loop_factory(options: RunOptions) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not options.uvloop:
        return None
    import uvloop

    return uvloop.new_event_loop


async def _run(options: RunOptions, stop: StopRequest, parent: Connection | None, sent_to: Connection | None) -> int:
    stop.attach()
    started = asyncio.Event()
    serving = asyncio.create_task(_serve(options, stop, started, parent, sent_to), name="rapids-run")
    stopping = asyncio.create_task(stop.asked.wait(), name="rapids-run-stop")
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not serving.done():
        stop.log((stop.limit or GIVE_BACK) - GIVE_BACK)
        if not started.is_set():
            serving.cancel()
        await asyncio.wait({serving})
    if serving.cancelled():
        return 0
    if (error := serving.exception()) is None:
        return 0
    if isinstance(error, RapidsError) and not started.is_set():
        raise error
    _logger.critical("the process failed: %s: %s", type(error).__name__, error, exc_info=error)
    return FAILED if started.is_set() else NOT_STARTED


async def _serve(
    options: RunOptions,
    stop: StopRequest,
    started: asyncio.Event,
    parent: Connection | None,
    sent_to: Connection | None,
) -> None:
    """Run everything, each part after those that it needs. They stop in the opposite order."""
    async with AsyncExitStack() as parts:
        telemetry: TelemetryHooks | None = None
        if options.otel:  # first, so that it is flushed last
            from rapids.telemetry.sdk import sdk_running

            telemetry = parts.enter_context(sdk_running())
        readiness: list[Readiness] = []

        async def is_ready() -> bool:
            return bool(readiness) and await readiness[0].check()

        metrics = Metrics()
        if parent is None:
            await parts.enter_async_context(
                listening(options.health, options.metrics, live=_always, ready=is_ready, shown=metrics)
            )
        found = await find(options.targets)
        if options.lifespan is None:
            check_lifespan(found.routers)
        lifespan = None if options.lifespan is None else find_lifespan(options.lifespan)
        longest = max(router.shutdown_timeout for router in found.routers)
        graceful = longest if options.graceful_timeout is None else min(longest, options.graceful_timeout)
        stop.limit = GIVE_BACK + graceful
        client = await parts.enter_async_context(open_client(options.url))
        await reach(client, options.url)
        emitters = _prepare(options, found, client, telemetry)
        groups = tuple(map(WatchedGroup.of, found.routers))
        running = tuple(map(RunningRouter.of, found.routers))
        if parent is None:
            show_running(options.log_format, options.url, running)
        else:
            with suppress(OSError):  # the parent is gone, and the stop is asked for
                parent.send(Message(running, stop.limit, groups=groups))
        for emitter in emitters:
            parts.push_async_callback(emitter.drain)
        if lifespan is not None:
            await parts.enter_async_context(lifespan_running(lifespan))
        read, reader = partial(read_process, found.routers, emitters), GroupReader(client, groups)
        if sent_to is not None:
            parts.enter_context(_sent(sent_to, read))
        elif options.metrics is not None:
            metrics.processes, metrics.groups = lambda: {"1": read()}, reader
        try:
            running = routers_running(found.routers, client, stop_timeout=options.graceful_timeout)
            await parts.enter_async_context(running)
        except ResponseError as error:  # a permission that the user lacks, or a key of another kind
            raise RapidsError(f"Redis refuses to start a router: {error}; rapids doctor says what is wrong") from None
        if telemetry is not None:
            await parts.enter_async_context(reader.reported_to(telemetry.gauges, telemetry.wants_gauges))
        await parts.enter_async_context(operations_running(dead_letter_queues(client, found.routers).values()))
        readiness.append(Readiness(EventEmitter(client, found.routers[0].stream), found.routers))
        started.set()
        if parent is not None:
            await parts.enter_async_context(_reporting(parent, is_ready, often=options.health is not None))
        await stop.asked.wait()


def _prepare(
    options: RunOptions, found: Found, client: RedisClient, telemetry: TelemetryHooks | None
) -> list[EventEmitter]:
    """Set up the routers. Returns all emitters, those of the handlers included."""
    warnings, redactor = ServerWarnings(), Redactor.of(options.redact)
    emitters = list(found.emitters)
    for router in found.routers:
        if options.dead_letters:
            router.use_default_dlq()
        router.use_server_warnings(warnings)
        router.use_log_redaction(redactor.error)
        if options.metrics is not None:
            router.use_histograms()
        if len(found.emitters) == 1:
            router.use_dependencies(emitter=found.emitters[0])
        else:  # of several, it is not known which one the handlers want
            emitters.append(EventEmitter(client, router.stream))
            router.use_dependencies(emitter=emitters[-1])
    if telemetry is not None:
        for part in (*found.routers, *emitters):
            part.use_telemetry(telemetry)
    for emitter in found.emitters:
        if not emitter.configured:
            emitter.configure(client)
    return emitters


async def _always() -> bool:
    return True


@asynccontextmanager
async def _reporting(parent: Connection, is_ready: Probe, *, often: bool) -> AsyncGenerator[None]:
    """Report to the parent during the block."""

    async def report() -> None:
        with suppress(OSError):  # the parent is gone
            parent.send(Message(started=True, ready=True))
            while often:
                await asyncio.sleep(REPORT_EVERY)
                parent.send(Message(started=True, ready=await is_ready()))

    reporting = asyncio.create_task(report(), name="rapids-run-report")
    try:
        yield
    finally:
        reporting.cancel()
        await asyncio.wait({reporting})


@contextmanager
def _sent(to: Connection, read: Callable[[], ProcessReadings]) -> Generator[None]:
    """Send what this process counts to its parent during the block, and once more at its end.

    A thread does it, so that a blocked event loop hides nothing, and a parent that does not read blocks nothing.
    """
    ended = threading.Event()

    def send() -> None:
        last = ProcessReadings()
        with suppress(OSError):  # the parent is gone
            while True:
                is_last = ended.wait(REPORT_EVERY)
                if (readings := read()) != last:
                    to.send(readings)
                    last = readings
                if is_last:
                    return

    sending = threading.Thread(target=send, name="rapids-run-metrics", daemon=True)
    sending.start()
    try:
        yield
    finally:
        ended.set()
        sending.join(REPORT_EVERY)
