"""Control of a consumer group: pause it in all its processes at once, and resume it."""

import logging
from dataclasses import dataclass
from datetime import datetime

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ResponseError

from rapids._core.checks import actor_and_reason, stream_name, text
from rapids._core.json_schema import with_json_schema
from rapids._storage import group_control
from rapids._storage.client.connections import SharedPool
from rapids._storage.group_control import Paused
from rapids._storage.keys import Source
from rapids.exceptions import GroupNotFoundError, StreamNotFoundError

__all__ = ["GroupControl", "Pause"]

logger: logging.Logger = logging.getLogger("rapids.control")


@with_json_schema
@dataclass(frozen=True, slots=True)
class Pause:
    """The pause of a group: who asked for it, why, and when it began (UTC, by the server's clock)."""

    actor: str
    reason: str
    since: datetime


class GroupControl:
    """Pauses and resumes a consumer group, from any process: one that runs a router of the group, or a tool.

    `redis` is the client to use; `stream` and `group` are those of the group's routers.

    Raises `ValueError` or `TypeError` for an option that makes no sense.
    """

    def __init__(self, redis: Redis | RedisCluster, stream: str, group: str) -> None:
        self._source = Source(stream_name("stream", stream), text("group", group))
        self._commands = SharedPool(redis, stream)

    async def pause(self, *, actor: str = "", reason: str = "") -> Pause:
        """Pause the group: after about a second, none of its processes begins another entry.

        Running handlers finish, and their entries are settled. Entries that were taken and not begun are released, and
        that delivery does not count. Entries that failed wait, also when they are due. The pause survives restarts and
        lasts until `resume`. If the group is paused already, that pause stays and is returned. `actor` (200
        characters) and `reason` (1,000) are logged, kept until `resume`, and written to the stream's
        `rapids.audit.AuditLog`.

        Raises `StreamNotFoundError` or `GroupNotFoundError` if no router ever created the group,
        `redis.exceptions.RedisError` if Redis is unavailable.
        """
        actor_and_reason(actor, reason)
        try:
            paused = await group_control.pause(self._commands, self._source, actor, reason)
        except ResponseError as error:
            if "no such key" in str(error).lower():
                raise StreamNotFoundError(self._source.stream) from error
            raise
        if paused is None:
            raise GroupNotFoundError(self._source.stream, self._source.group)
        self._log("paused", actor, reason)
        return _pause(paused)

    async def resume(self, *, actor: str = "", reason: str = "") -> Pause | None:
        """End the pause: after about a second, every process of the group continues. The pause that ended, or None.

        `actor` (200 characters) and `reason` (1,000) are logged, and written to the stream's `rapids.audit.AuditLog`.

        Raises `redis.exceptions.RedisError` if Redis is unavailable.
        """
        actor_and_reason(actor, reason)
        if (ended := await group_control.resume(self._commands, self._source, actor, reason)) is None:
            return None
        self._log("resumed", actor, reason)
        return _pause(ended)

    async def paused(self) -> Pause | None:
        """The current pause, or None if the group is not paused.

        Raises `redis.exceptions.RedisError` if Redis does not answer.
        """
        paused = await group_control.paused(self._commands, self._source)
        return None if paused is None else _pause(paused)

    def _log(self, what: str, actor: str, reason: str) -> None:
        extra = {"stream": self._source.stream, "group": self._source.group, "actor": actor, "reason": reason}
        logger.info("the group is to be %s, requested by %r: %r", what, actor, reason, extra=extra)


def _pause(paused: Paused) -> Pause:
    return Pause(paused.actor, paused.reason, paused.since)
