-- How far a group has read its streams. It is a script, since XINFO STREAM would also send two entries of any size.
--
-- KEYS  stream, replay stream, due, replay stream's due, paused
-- ARGV  group
-- Returns {last id, last delivered id, whether there is more to read (1 | 0), pending, waiting, actor, reason, since in
-- ms}; nothing if a stream or its group is gone.
-- include: lib/last_id.lua

local function group_of(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if groups.err then
    if string.find(groups.err, 'no such key', 1, true) then return nil end
    error(groups.err)
  end
  for _, row in ipairs(groups) do
    local group = fields(row)
    if group.name == ARGV[1] then return group end
  end
end

local function has_more(stream, group)
  -- The last id is not enough: deleted or trimmed entries are never delivered.
  local more = redis.pcall('XRANGE', stream, '(' .. group['last-delivered-id'], '+', 'COUNT', 1)
  return not more.err and #more > 0
end

local main, replay = group_of(KEYS[1]), group_of(KEYS[2])
if not main or not replay then return false end
local more = (has_more(KEYS[1], main) or has_more(KEYS[2], replay)) and 1 or 0
local waiting = redis.call('ZCARD', KEYS[3]) + redis.call('ZCARD', KEYS[4])
local paused = redis.call('HMGET', KEYS[5], 'actor', 'reason', 'since_ms')
return {last_id_of(KEYS[1]), main['last-delivered-id'], more, main.pending + replay.pending, waiting, paused[1], paused[2], paused[3]}
