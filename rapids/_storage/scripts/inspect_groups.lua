-- How far the groups of a stream are, by name.
--
-- KEYS  stream
-- ARGV  the only group to return, or '' for all, the name to begin at, and options as JSON:
--       `most` groups; `counted`: how many undelivered entries to count if the server does not know the lag;
--       the prefixes of keys: `due`, `replays` (replay streams) and `paused`, each before the group's name, and
--       `names` of consumers (before group, colon, name)
-- Returns {now in ms, length, first id, last id, groups, more (1 | 0)}; an id is false if there is no entry. A group is
-- {name, last delivered id, entries read or false, lag or false, undelivered entries counted, the first of them or
-- false, pending, waiting ones of these, parked ones of these, the oldest of the other pending ones or false, due
-- entries, entries to replay, consumers, living consumers, {actor, reason, since in ms} of its pause}.
-- include: lib/time.lua
-- include: lib/names.lua
local stream, only, from, options = KEYS[1], ARGV[1], ARGV[2], cjson.decode(ARGV[3])
local looked_at, enough = 0, 2000 -- consumers, or entries: the server does nothing else during a script

-- include: lib/fields.lua

-- include: lib/byte_order.lua

-- include: lib/entry_id.lua

local function oldest_but_parked(group, pending, consumers)
  local first = redis.call('XPENDING', stream, group, '-', '+', 1)[1]
  if not first then return false end
  if first[2] ~= PARKED then return first[1] end
  local oldest, nobodys = false, pending
  local function see(id)
    if not oldest or is_before(id, oldest) then oldest = id end
  end
  for _, consumer in ipairs(consumers) do
    if consumer.name ~= NOBODY then
      nobodys = nobodys - consumer.pending
      if consumer.pending > 0 and consumer.name ~= PARKED then
        see(redis.call('XPENDING', stream, group, '-', '+', 1, consumer.name)[1][1])
      end
    end
  end
  if nobodys > 0 then -- after an XNACK. They can only be listed with all others
    for _, row in ipairs(redis.call('XPENDING', stream, group, '-', '+', enough)) do
      if row[2] == NOBODY then
        see(row[1])
        break
      end
    end
  end
  return oldest
end

local function state_of(is)
  local consumers, living, held_by = {}, 0, {}
  for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', stream, is.name)) do
    local consumer = fields(row)
    held_by[consumer.name] = consumer.pending
    consumers[#consumers + 1] = consumer
    looked_at = looked_at + 1
    living = living + redis.call('EXISTS', options.names .. is.name .. ':' .. consumer.name)
  end
  local ours = (held_by[WAITING] and 1 or 0) + (held_by[PARKED] and 1 or 0)
  local count = is.lag and 1 or options.counted
  -- Nothing comes after the highest possible id, and a query for it is an error.
  local next_ = redis.pcall('XRANGE', stream, '(' .. is['last-delivered-id'], '+', 'COUNT', count)
  return {
    is.name, is['last-delivered-id'], is['entries-read'] or false, is.lag or false, #next_,
    next_[1] and next_[1][1] or false, is.pending, held_by[WAITING] or 0, held_by[PARKED] or 0,
    oldest_but_parked(is.name, is.pending, consumers), redis.call('ZCARD', options.due .. is.name),
    redis.call('XLEN', options.replays .. is.name), #consumers - ours, living,
    redis.call('HMGET', options.paused .. is.name, 'actor', 'reason', 'since_ms'),
  }
end

local rows = redis.pcall('XINFO', 'GROUPS', stream)
if rows.err then return rows end
local groups, more = {}, 0
for _, row in ipairs(rows) do
  local is = fields(row)
  if only == is.name or (only == '' and not is_below(is.name, from)) then
    if #groups == options.most or looked_at >= enough then
      more = 1
      break
    end
    groups[#groups + 1] = state_of(is)
  end
end
local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
return {
  server_ms(), redis.call('XLEN', stream), first and first[1] or false,
  last and last[1] or false, groups, more,
}
