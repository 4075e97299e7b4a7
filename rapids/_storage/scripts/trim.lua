-- Remove the entries that every group of a stream has settled, also groups that Rapids did not create. It is one step,
-- since a group could move back, or take an entry, in between.
--
-- KEYS  stream, mark: remembers for some time that this was done
-- ARGV  a group that must exist (a lost group that will be recreated still needs its entries), the least age in ms of
--       entries to remove, how many to remove at most, how long to keep the mark in ms
-- Returns {removed, left in the stream, held}: held is false if all groups are done, else the oldest entry that some
-- group has not settled: {group, entry id, its age in ms, the consumer that has it, or '' if it is not read yet}
-- include: lib/time.lua
local stream, mark = KEYS[1], KEYS[2]
local own, least_age, most, mark_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]

-- include: lib/entry_id.lua

-- include: lib/fields.lua

if redis.call('EXISTS', stream) == 0 then return {0, 0, false} end
local now = server_ms()

-- The last entry that a group has read is kept, as proof that no later entry was removed.
local until_id, slowest, has_own = nil, nil, false
for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local group = fields(row)
  local first, consumer = group['last-delivered-id'], nil
  local pending = redis.call('XPENDING', stream, group.name, '-', '+', 1)[1]
  if pending and not is_before(first, pending[1]) then
    first, consumer = pending[1], pending[2]
  end
  if not until_id or is_before(first, until_id) then
    until_id, slowest = first, {name = group.name, consumer = consumer}
  end
  has_own = has_own or group.name == own
end

local removed = 0
-- One entry older than that is also kept: an emitter knows by it that its later writes can still be found.
local old = redis.call('XREVRANGE', stream, string.format('%.0f', now - least_age), '-', 'COUNT', 1)[1]
if has_own and old then
  if is_before(old[1], until_id) then
    removed = redis.call('XTRIM', stream, 'MINID', '~', old[1], 'LIMIT', most)
  else
    removed = redis.call('XTRIM', stream, 'MINID', '~', until_id, 'LIMIT', most)
  end
  if removed > 0 then redis.call('SET', mark, '1', 'PX', mark_ms) end
end

local held = false
if slowest then
  local id = until_id
  if not slowest.consumer then
    local unread = redis.call('XRANGE', stream, '(' .. until_id, '+', 'COUNT', 1)[1]
    id = unread and unread[1]
  end
  if id then
    local age = now - tonumber(string.match(id, '^%d+'))
    held = {slowest.name, id, string.format('%.0f', age), slowest.consumer or ''}
  end
end
return {removed, redis.call('XLEN', stream), held}
