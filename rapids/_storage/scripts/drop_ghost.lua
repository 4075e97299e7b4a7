-- Acknowledge a trimmed entry, and delete what is kept for it. An entry that exists is not changed.
--
-- It is one step: after a failover, the answer that the entry is missing may have come from the earlier master, which
-- never had it.
--
-- KEYS  stream, ledger, due, parked
-- ARGV  group, entry id
-- Returns the fields of an entry that exists after all, else false.
-- include: lib/entry.lua
local found = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if found then return found[2] end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
forget(KEYS[2], KEYS[3], KEYS[4], ARGV[2])
return false
