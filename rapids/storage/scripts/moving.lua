-- Moving dead letters out of their stream into the archive, and back. The archive is one stream of letters by the time
-- they were archived; a letter's own fields come first, then its id and what was done to it (`rapids:history`, JSON).
-- A restored letter takes its history along, and only where `restored` vouches for its entry is that believed.
-- with indexing
-- with auditing

local HISTORY, LETTER = 'rapids:history', 'rapids:letter_id'
local MOST_VALUES = 7900 -- of a letter; Lua hands a command no more than 8,000
local LONGEST_HISTORY, FEWEST_CHANGES = 16384, 20

local function value_of(letter, name)
  for i = 1, #letter, 2 do
    if letter[i] == name then return letter[i + 1] end
  end
end

local function microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function milliseconds(us) return string.format('%.0f', math.floor(us / 1000)) end

-- The letter's own id, and whether it was restored: then it has another than its entry, if it is not making that up.
local function identity(restored, entry_id, letter)
  local claimed = value_of(letter, 'letter_id')
  if claimed and claimed ~= '' and claimed ~= entry_id then
    local at = redis.call('ZSCORE', restored, claimed)
    if at and string.format('%.0f', at) == string.match(entry_id, '^%d+') then return claimed, true end
  end
  return entry_id, false
end

local function changed(history, change)
  local one = cjson.encode(change)
  if not history then return '[' .. one .. ']' end
  if #history > LONGEST_HISTORY then
    local changes, last = cjson.decode(history), {}
    for i = math.max(1, #changes - FEWEST_CHANGES), #changes do last[#last + 1] = changes[i] end
    history = cjson.encode(last)
  end
  return string.sub(history, 1, -2) .. ',' .. one .. ']'
end

-- A place in the archive: each letter gets the next one.
local function archive_end(archive, now)
  local last = string.match(last_id_of(archive), '^%d+')
  return math.max(now, tonumber(last) + 1)
end

local function put_away(archive, archived, place, letter_id, letter, history)
  local command = {'XADD', archive, string.format('%.0f-0', place)}
  for i = 1, #letter, 2 do
    if letter[i] ~= HISTORY and letter[i] ~= LETTER then
      command[#command + 1] = letter[i]; command[#command + 1] = letter[i + 1]
    end
  end
  command[#command + 1] = LETTER; command[#command + 1] = letter_id
  command[#command + 1] = HISTORY; command[#command + 1] = history
  redis.call(unpack(command))
  redis.call('ZADD', archived, string.format('%.0f', place), letter_id)
end

local function take_out(archive, archived, place, letter_id)
  redis.call('XDEL', archive, string.format('%.0f-0', place))
  redis.call('ZREM', archived, letter_id)
end

-- Drop the oldest letters: those past their retention (in ms), and those that are too many.
local function bound_archive(archive, archived, again, now, retention, most)
  local over = math.min(redis.call('ZCARD', archived) - most, 2000)
  local old = over > 0 and redis.call('ZRANGE', archived, 0, over - 1, 'WITHSCORES') or {}
  if #old == 0 then
    local expired = string.format('%.0f', now - retention * 1000)
    old = redis.call('ZRANGEBYSCORE', archived, '-inf', expired, 'WITHSCORES', 'LIMIT', 0, 100)
  end
  for i = 1, #old, 2 do
    take_out(archive, archived, tonumber(old[i + 1]), old[i])
    redis.call('HDEL', again, old[i])
  end
  for _, key in ipairs({archive, archived, again}) do redis.call('PEXPIRE', key, retention) end
end

-- Whether a process may go on with an operation.
local function goes_on(operation, owner)
  local held = redis.call('HMGET', operation, 'state', 'owner')
  return held[1] == 'running' and held[2] == owner
end
