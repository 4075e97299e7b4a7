-- Remove the entries that every group of a stream has settled, also groups that Rapids did not create. It is one step,
-- since a group could move back, or take an entry, in between.
--
-- KEYS  stream, mark: remembers for some time that this was done
-- ARGV  a group that must exist (a lost group that will be recreated still needs its entries), the least age in ms of
--       entries to remove, how many to remove at most, how long to keep the mark in ms; and what an earlier call has
--       shown, '' if it is not known: an id that is old enough; an id, and that of the first entry after it
-- Returns {removed, left in the stream, held, now in ms, the stream's last id, the id up to which all groups are done}:
-- held is false if all groups are done, else the oldest entry that some group has not settled: {group, entry id, its age
-- in ms, the consumer that has it, '' for nobody, or false if it is not read yet}
-- include: lib/time.lua
-- include: lib/ids.lua
local stream, mark = KEYS[1], KEYS[2]
local own, least_age, most, mark_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local known_old, known_done, known_unread = ARGV[5], ARGV[6], ARGV[7]

-- include: lib/entry_id.lua

if redis.call('EXISTS', stream) == 0 then return {0, 0, false, 0, '', ''} end
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
local function old_id()
  local too_young = string.format('%.0f-0', now - least_age + 1)
  if is_before(until_id, too_young) and is_in(stream, until_id) then return until_id end
  if known_old ~= '' then return known_old end
  local row = redis.call('XREVRANGE', stream, '(' .. too_young, '-', 'COUNT', 1)[1]
  return row and row[1]
end

local old = has_own and old_id()
if old then
  removed = redis.call('XTRIM', stream, 'MINID', '~', is_before(old, until_id) and old or until_id, 'LIMIT', most)
  if removed > 0 then redis.call('SET', mark, '1', 'PX', mark_ms) end
end

local held = false
if slowest then
  local id = until_id
  if not slowest.consumer and until_id == known_done and is_in(stream, known_unread) then
    id = known_unread
  elseif not slowest.consumer then
    local unread = redis.call('XRANGE', stream, '(' .. until_id, '+', 'COUNT', 1)[1]
    id = unread and unread[1]
  end
  if id then
    local age = now - tonumber(string.match(id, '^%d+'))
    held = {slowest.name, id, string.format('%.0f', age), slowest.consumer or false}
  end
end
return {removed, redis.call('XLEN', stream), held, now, last_id_of(stream), until_id or ''}
