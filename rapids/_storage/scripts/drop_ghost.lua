-- Acknowledge an entry that was trimmed away, and forget what is kept of it; but not one that is there.
--
-- In one step: after a failover the answer that it is not there may have come from another server, which was the master
-- before and never had it.
--
-- KEYS  stream, ledger, due
-- ARGV  group, entry id
-- Returns the fields of an entry that is there after all, else false
local found = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if found then return found[2] end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[2])
return false
