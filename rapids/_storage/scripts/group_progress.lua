-- How far a group has read its streams. It is a script, since XINFO STREAM would read two entries of any size.
--
-- KEYS  stream, replay stream, due, replay stream's due, paused
-- ARGV  group
-- Returns {last id, last delivered id, whether there is more to read (1 | 0), pending, waiting, actor, reason, since in
-- ms}; nothing if a stream or its group is gone.
-- include: lib/entry_id.lua
-- include: lib/ids.lua

local function progress_of(stream)
  return redis.call('EXISTS', stream) == 1 and group_of(stream, ARGV[1])
end

local function has_more(stream, group, last)
  if not is_before(group['last-delivered-id'], last) then return false end
  -- Deleted or trimmed entries are never delivered, so the last id is not enough if its entry is gone.
  return is_in(stream, last) or #redis.call('XRANGE', stream, '(' .. group['last-delivered-id'], '+', 'COUNT', 1) > 0
end

local main, replay = progress_of(KEYS[1]), progress_of(KEYS[2])
if not main or not replay then return false end
local last, last_replay = last_id_of(KEYS[1]), last_id_of(KEYS[2])
local more = (has_more(KEYS[1], main, last) or has_more(KEYS[2], replay, last_replay)) and 1 or 0
local waiting = redis.call('ZCARD', KEYS[3]) + redis.call('ZCARD', KEYS[4])
local paused = redis.call('HMGET', KEYS[5], 'actor', 'reason', 'since_ms')
return {last, main['last-delivered-id'], more, main.pending + replay.pending, waiting, paused[1], paused[2], paused[3]}
