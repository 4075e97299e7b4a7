"""Replaying a dead letter with a patch of its data: a JSON Merge Patch (RFC 7396)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue
from rapids.dead_letters.edit import edited, merge_patch
from rapids.dead_letters.exact_json import read_exact
from rapids.exceptions import EditRefusedError
from tests.dead_letters.helpers import write
from tests.dead_letters.test_edit import EdClosed, EdGift, event_in, letter_of
from tests.support import full_thread_pool
from tests.worker.helpers import (
    DLQ,
    replay_stream,
)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # the test cases of RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_makes_what_the_rfc_says(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


def test_fields_that_a_patch_does_not_name_keep_their_stored_value() -> None:
    stored = b'{"lines": [{"kind": "gift", "to": "x"}], "total": 1, "secret": {"a": 1, "b": [null, "\\u00e9"]}}'
    edit = edited(letter_of(data=stored), patch={"total": 2.5, "secret": {"a": None, "c": 3}})
    assert json.loads(edit.data) == json.loads(stored) | {"total": 2.5, "secret": {"b": [None, "\u00e9"], "c": 3}}
    assert [(one.op, one.pointer) for one in edit.diff] == [
        ("replace", "/total"),
        ("remove", "/secret/a"),
        ("add", "/secret/c"),
    ]
    event = event_in(edit)
    assert (event.total, event.lines) == (2.5, [EdGift(to="x")])


def test_numbers_keep_their_digits() -> None:
    stored = (
        b'{"total":48.90,"by_number":{"1":9007199254740993},"odd":[1.10],"tiny":1e-5000,"long":0.1000000000000000001}'
    )
    kept = edited(letter_of(data=stored), patch={"at": None})
    assert (kept.data.encode(), kept.diff) == (stored, ())
    patch = b'{"total":48.9,"by_number":{"1":9007199254740992},"odd":[1.1],"tiny":0.0,"long":0.1}'
    changed = edited(letter_of(data=stored), patch=read_exact(patch))
    assert changed.data.encode() == patch
    assert [one.pointer for one in changed.diff] == ["/by_number/1", "/tiny", "/long"], "48.90 is 48.9"


def test_a_patch_that_changes_nothing_is_taken() -> None:
    edit = edited(letter_of(EdClosed(n=1)), patch={})
    assert (event_in(edit).n, edit.diff) == (1, ())


def test_the_patched_event_is_checked_by_its_class() -> None:
    with pytest.raises(EditRefusedError) as refused:
        edited(letter_of(EdClosed(n=1)), patch={"n": "x", "other": 2})
    assert sorted(problem.pointer for problem in refused.value.problems) == ["/n", "/other"]
    with pytest.raises(EditRefusedError) as refused:
        edited(letter_of(EdClosed(n=1)), patch={"n": None})
    assert [problem.pointer for problem in refused.value.problems] == ["/n"]


@pytest.mark.parametrize("stored", [b"{", b"[1]", b"null", b"\xff", b""])
def test_data_that_are_no_object_cannot_be_patched(stored: bytes) -> None:
    with pytest.raises(EditRefusedError, match="no JSON object"):
        edited(letter_of(data=stored), patch={"total": 1})


def test_a_patch_cannot_change_a_common_field() -> None:
    with pytest.raises(EditRefusedError, match="common field"):
        edited(letter_of(), patch={"correlation_id": "x"})


@pytest.mark.parametrize("patch", ["x", [1], 7, [("total", 1)]])
def test_a_patch_must_be_a_mapping(patch: Any) -> None:
    with pytest.raises(TypeError, match="patch must be a mapping"):
        edited(letter_of(), patch=patch)


async def test_a_patched_replay_reaches_the_handler_and_the_history_has_the_whole_data(redis: Redis) -> None:
    letter_id, queue = await write(redis, number=1, text="kept"), DeadLetterQueue(redis, DLQ)
    replay = await queue.replay(letter_id, patch={"number": 7})
    ((_, fields),) = await redis.xrange(replay_stream())
    assert json.loads(fields[b"data"]) == {"number": 7, "text": "kept"}
    assert [(one.pointer, one.before, one.after) for one in replay.diff] == [("/number", 1, 7)]
    (change,) = (await queue.get(letter_id)).history
    assert json.loads(change.data) == {"number": 7, "text": "kept"}


async def test_a_patched_replay_does_not_wait_for_handlers_that_fill_the_threads(redis: Redis) -> None:
    letter_id, queue = await write(redis, number=1), DeadLetterQueue(redis, DLQ)
    async with full_thread_pool():
        assert (await queue.replay(letter_id, patch={"number": 7})).diff


async def test_data_and_a_patch_together_are_refused(redis: Redis) -> None:
    letter_id, queue = await write(redis), DeadLetterQueue(redis, DLQ)
    with pytest.raises(ValueError, match="either data or patch"):
        await queue.replay(letter_id, data={"number": 1}, patch={"number": 2})
    assert (await queue.get(letter_id)).state == "dead"
