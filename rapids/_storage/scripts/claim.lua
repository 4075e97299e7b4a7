-- Take entries for a consumer: named entries that their consumer abandoned, and waiting entries that are due.
-- A pending entry that was trimmed from the stream (a ghost) is acknowledged and reported, not taken, unless a living
-- process has it: that process may hold the only copy of its fields, and releases it itself.
--
-- KEYS  stream, ledger, due, parked, how far the waiting and parked entries of a lost group are restored; in a group with
--       one active consumer, who is active and the latest term
-- ARGV  group, consumer, options as JSON, then ids of the named entries. The options:
--       `min_idle`: least idle time in ms of a named entry (0: it must still be this consumer's own);
--       `again`: whether named entries that this consumer has already are taken as they are: not as another delivery,
--       and without their fields, since an earlier answer with them was lost;
--       `latest`: named entries of others are not taken if it is later, by the server's clock in ms;
--       `most`: how many bytes of fields are returned: further entries are taken without their fields;
--       `due`: how many due entries to take at most; `look`: from how many of them to choose the oldest;
--       `names`: the prefix of the keys by which living processes hold consumer names ('': ignore them);
--       `term`: in a group with one active consumer, the token of its term
-- Returns {taken, ghosts, wait, now}: taken is a list of {id, fields, delivery count, ledger or false}, wait the
-- milliseconds until the next waiting entry is due, or -1, and now the time in ms. Or false if the term has ended
-- and there is anything to take.
-- include: lib/time.lua
-- include: lib/names.lua
-- include: lib/entry.lua
-- include: lib/ids.lua
-- include: lib/holding_consumers.lua
-- include: lib/term.lua
local stream, ledger_key, due_key, parked_key, restoring = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, consumer, options = ARGV[1], ARGV[2], cjson.decode(ARGV[3])
local min_idle, names = options.min_idle, options.names
local now = server_ms()
local taken, ghosts, bytes = {}, {}, 0

local function is_refused() return options.term and has_ended(options.term, KEYS[6], KEYS[7]) end

if #ARGV > 3 and is_refused() then return false end

local function is_alive(owner)
  return names ~= '' and owner ~= consumer and redis.call('EXISTS', names .. owner) == 1
end

local function take(id, deliveries, owner, is_bare)
  local found = not is_bare and redis.call('XRANGE', stream, id, id)[1]
  if not found and not (is_bare and is_in(stream, id)) then
    if owner and is_alive(owner) then return end
    redis.call('XACK', stream, group, id)
    forget(ledger_key, due_key, parked_key, id)
    ghosts[#ghosts + 1] = id
    return
  end
  redis.call('XCLAIM', stream, group, consumer, 0, id, 'RETRYCOUNT', deliveries, 'FORCE', 'JUSTID')
  redis.call('ZREM', due_key, id)
  local content, size = found and found[2] or {}, 0
  for _, part in ipairs(content) do size = size + #part end
  if bytes + size > options.most then content = {} else bytes = bytes + size end
  taken[#taken + 1] = {id, content, deliveries, redis.call('HGET', ledger_key, id)}
end

for i = 4, #ARGV do
  local id = ARGV[i]
  local entry = pending_of(stream, group, id)
  local is_own = entry and entry[2] == consumer
  local is_abandoned = min_idle > 0 and now <= options.latest
  if options.again and is_own then
    take(id, entry[4], nil, true)
  elseif entry and (entry[3] >= min_idle or entry[2] == NOBODY) and (is_abandoned or is_own) and entry[2] ~= PARKED
    and not (entry[2] == WAITING and redis.call('ZSCORE', due_key, id)) then
    take(id, entry[4] + 1, entry[2])
  end
end

-- include: lib/entry_id.lua

local function was_settled(id)
  -- By a consumer that ignores due times: one on rapids-streams, or one that had lost its lease. A group that was
  -- recreated without its waiting entries has no consumer for them. The consumer is created when they are restored.
  -- While that lasts, nobody can tell: the entry may run twice rather than never.
  if redis.call('HEXISTS', restoring, WAITING) == 1 then return false end
  for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    if row[2] == WAITING then return is_in(stream, id) end
  end
  return false
end

if options.due > 0 then
  restore_step(stream, group, ledger_key, due_key, parked_key, restoring)
  local due = redis.call('ZRANGEBYSCORE', due_key, '-inf', now, 'LIMIT', 0, options.look)
  -- Entries due in the same millisecond are in text order, in which 1-10 comes before 1-9.
  table.sort(due, is_before)
  if #due > 0 and is_refused() then return false end
  for i = 1, math.min(options.due, #due) do
    local id = due[i]
    local entry = pending_of(stream, group, id)
    if not entry and was_settled(id) then
      forget(ledger_key, due_key, parked_key, id)
    elseif not entry then
      -- Its group was lost and recreated without it.
      local stored = redis.call('HGET', ledger_key, id)
      take(id, (stored and cjson.decode(stored).n or 0) + 1)
    elseif entry[2] == WAITING then
      take(id, entry[4] + 1)
    else
      redis.call('ZREM', due_key, id)
    end
  end
end

local wait = -1
local first = redis.call('ZRANGE', due_key, 0, 0, 'WITHSCORES')
if #first > 0 then wait = math.max(0, tonumber(first[2]) - now) end
return {taken, ghosts, wait, now}
