"""Entries that Rapids packs itself are as redis-py would send them."""

from __future__ import annotations

import hiredis
from hypothesis import given
from hypothesis import strategies as st

from rapids._storage.appends import EntryPacker

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
fields = st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.binary(max_size=200)), min_size=1, max_size=10)


@given(stream=texts, fields=fields, maxlen=st.none() | st.integers(1, 2**63 - 1))
def test_any_entry_is_packed_as_redis_py_packs_it(
    stream: str, fields: list[tuple[bytes, bytes]], maxlen: int | None
) -> None:
    packer = EntryPacker(stream, [name for name, _ in fields], maxlen)
    trim = () if maxlen is None else ("MAXLEN", "~", maxlen)
    parts = [part for field in fields for part in field]
    assert packer.pack([value for _, value in fields]) == hiredis.pack_command(("XADD", stream, *trim, "*", *parts))
