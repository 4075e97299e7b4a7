-- The state of an entry of a group's replay stream.
--
-- KEYS  replay stream
-- ARGV  group, entry id
-- Returns 'undelivered', 'pending', 'gone' (it is deleted when it is settled), or 'unknown' if the stream or the group
-- no longer exists.
-- include: lib/entry_id.lua
-- include: lib/ids.lua
local stream, group, id = KEYS[1], ARGV[1], ARGV[2]
local ok, is_there = pcall(is_in, stream, id)
if not ok then return 'unknown' end
if is_there then
  local pending = redis.pcall('XPENDING', stream, group, id, id, 1)
  return not pending.err and #pending > 0 and 'pending' or 'undelivered'
end
return is_before(last_id_of(stream), id) and 'unknown' or 'gone'
