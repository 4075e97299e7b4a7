"""A process that was forked does not use the connections of the process that forked it."""

from __future__ import annotations

import pytest

from tests.embedded.scripts import ScriptRunner

FORKS = """
    import asyncio, json, multiprocessing, os, sys
    from redis.asyncio import Redis
    from rapids import BaseEvent, DeadLetterQueue, EventEmitter

    class FkNoted(BaseEvent):
        number: int = 0

    url, how = sys.argv[1:]
    client = Redis.from_url(url)
    emitter, queue = EventEmitter(client, "fk:events"), DeadLetterQueue(client, "fk:letters")

    def calls():
        return [emitter.emit(FkNoted())] if how == "its loop has ended" else [emitter.emit(FkNoted()), queue.list()]

    async def use():
        for one in calls():
            await one

    def tell(use):
        answers = []
        for one in calls():
            try:
                use(one)
                answers.append("works")
            except Exception as error:
                answers.append(f"{type(error).__name__}: {error}")
                one.close()
        print(json.dumps(answers), flush=True)

    def child(use):
        if (pid := os.fork()) == 0:
            try:
                tell(use)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)

    if how == "its loop":
        with asyncio.Runner() as runner:
            runner.run(use())
            child(runner.run)
            runner.run(use())
            tell(runner.run)
    elif how == "a loop of its own":
        async def main():
            await use()
            process = multiprocessing.get_context("fork").Process(target=tell, args=(asyncio.run,))
            process.start()
            while process.is_alive():
                await asyncio.sleep(0.01)
            await use()
            print(json.dumps(["works", "works"]), flush=True)
        asyncio.run(main())
    else:  # its loop has ended
        asyncio.run(use())
        child(asyncio.run)
        tell(asyncio.run)
"""

REFUSED = "NotConfiguredError: this process was forked from one whose event loop has connections to Redis"


@pytest.mark.parametrize("how", ["its loop", "a loop of its own"])
async def test_a_child_that_would_share_connections_is_refused_and_the_parent_goes_on(
    run_script: ScriptRunner, redis_url: str, how: str
) -> None:
    script = run_script(FORKS, redis_url, how)
    answers = await script.hear()
    assert [one.partition(",")[0] for one in answers] == [REFUSED, REFUSED]
    assert await script.hear() == ["works", "works"]
    script.end()


async def test_a_child_whose_parents_loop_has_ended_works(run_script: ScriptRunner, redis_url: str) -> None:
    script = run_script(FORKS, redis_url, "its loop has ended")
    assert await script.hear() == ["works"]
    assert await script.hear() == ["works"]
    script.end()
