-- Take entries for a consumer: those named that their consumer abandoned, and waiting ones that are due.
-- An entry that is pending but no longer in the stream (a ghost: trimmed away) is acknowledged and reported, not taken;
-- unless a living process has it: that may hold what nobody else can have any more, and lets go of it by itself.
--
-- KEYS  stream, ledger, due, parked
-- ARGV  group, consumer, least idle time in ms of a named entry (0: it must still be this consumer's own),
--       how many due ones to take at most, of how many the oldest (as many or more), what the key begins with by which
--       a living process holds a consumer's name ('': take no notice of it), then ids
-- Returns {taken, ghosts, wait, now}: taken is a list of {id, fields, delivery count, ledger or false}, wait the
-- milliseconds until the next waiting entry is due, or -1, and now the time in ms.
-- include: lib/time.lua
-- include: lib/names.lua
-- include: lib/entry.lua
local stream, ledger_key, due_key, parked_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, consumer, min_idle, room, look = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local names = ARGV[6]
local now = server_ms()
local taken, ghosts = {}, {}

local function is_alive(owner)
  return names ~= '' and owner ~= consumer and redis.call('EXISTS', names .. owner) == 1
end

local function take(id, count, owner)
  local found = redis.call('XRANGE', stream, id, id)
  if #found == 0 then
    if owner and is_alive(owner) then return end
    redis.call('XACK', stream, group, id)
    forget(ledger_key, due_key, parked_key, id)
    ghosts[#ghosts + 1] = id
    return
  end
  redis.call('XCLAIM', stream, group, consumer, 0, id, 'RETRYCOUNT', count + 1, 'FORCE', 'JUSTID')
  redis.call('ZREM', due_key, id)
  taken[#taken + 1] = {id, found[1][2], count + 1, redis.call('HGET', ledger_key, id)}
end

for i = 7, #ARGV do
  local id = ARGV[i]
  local entry = pending_of(stream, group, id)
  if entry and entry[3] >= min_idle and (min_idle > 0 or entry[2] == consumer) and entry[2] ~= PARKED
    and not (entry[2] == WAITING and redis.call('ZSCORE', due_key, id)) then
    take(id, entry[4], entry[2])
  end
end

-- include: lib/entry_id.lua

local function was_settled(id)
  -- By somebody who does not know of due times: a consumer on rapids-streams, or one that had lost its lease. A lost
  -- group that was made again without what waited in it has no consumer for that; one is made where it is given back.
  if not is_in(stream, id) then return false end
  for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    if row[2] == WAITING then return true end
  end
  return false
end

if room > 0 then
  local due = redis.call('ZRANGEBYSCORE', due_key, '-inf', now, 'LIMIT', 0, look)
  -- Those due in the same millisecond are in the order of text, in which 1-10 comes before 1-9.
  table.sort(due, is_before)
  for i = 1, math.min(room, #due) do
    local id = due[i]
    local entry = pending_of(stream, group, id)
    if not entry and was_settled(id) then
      forget(ledger_key, due_key, parked_key, id)
    elseif not entry then
      -- Its group was lost, and made again without it.
      local stored = redis.call('HGET', ledger_key, id)
      take(id, stored and cjson.decode(stored).n or 0)
    elseif entry[2] == WAITING then
      take(id, entry[4])
    else
      redis.call('ZREM', due_key, id)
    end
  end
end

local wait = -1
local first = redis.call('ZRANGE', due_key, 0, 0, 'WITHSCORES')
if #first > 0 then wait = math.max(0, tonumber(first[2]) - now) end
return {taken, ghosts, wait, now}
