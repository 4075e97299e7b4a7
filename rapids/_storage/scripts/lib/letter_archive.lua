-- Moves of dead letters from their stream to the archive, and back. The archive is one stream of letters by the time of
-- archiving. A letter's own fields come first, then its id and what was done to it (`rapids:history`, JSON). A restored
-- letter keeps its history, which is trusted only if `restored` has its entry.
-- include: lib/letter_index.lua
-- include: lib/audit.lua
-- include: lib/time.lua

local HISTORY, LETTER = 'rapids:history', 'rapids:letter_id'
local MAX_VALUES = 7900 -- of a letter; Lua can pass at most 8,000 to a command
local MAX_HISTORY, MIN_CHANGES = 16384, 20

local function value_of(letter, name)
  for i = 1, #letter, 2 do
    if letter[i] == name then return letter[i + 1] end
  end
end

local function milliseconds(us) return string.format('%.0f', math.floor(us / 1000)) end

-- The letter's own id, and whether it was restored: then its id differs from its entry's, unless the id is forged.
local function identity(restored, entry_id, letter)
  local claimed = value_of(letter, 'letter_id')
  if claimed and claimed ~= '' and claimed ~= entry_id then
    local at = redis.call('ZSCORE', restored, claimed)
    if at and string.format('%.0f', at) == string.match(entry_id, '^%d+') then return claimed, true end
  end
  return entry_id, false
end

-- The changes of a history; none if the history was damaged.
local function changes_in(history)
  local ok, changes = pcall(cjson.decode, history)
  return ok and type(changes) == 'table' and changes or {}
end

-- A history (nil for none) with one more change, as JSON.
local function lengthened(history, one)
  if history and #history > MAX_HISTORY then
    local changes, last = changes_in(history), {}
    for i = math.max(1, #changes - MIN_CHANGES), #changes do last[#last + 1] = changes[i] end
    history = cjson.encode(last)
  end
  local before = history and string.match(history, '^%[({.*})%]$')
  return '[' .. (before and before .. ',' or '') .. one .. ']'
end

local function changed(history, change) return lengthened(history, cjson.encode(change)) end

-- Keys of a wrong type fail here, before anything is changed.
local function check_kinds(archived, restored, failed_again)
  redis.call('ZCARD', archived)
  redis.call('ZCARD', restored)
  if failed_again then redis.call('HLEN', failed_again) end
end

-- A place in the archive: each letter gets the next one.
local function archive_end(archive, now)
  local last = string.match(last_id_of(archive), '^%d+')
  return math.max(now, tonumber(last) + 1)
end

-- Store a letter by a command that has all parts except its id and its history; `n` is the number of these parts. Later
-- parts are those of another letter and do not count.
local function store(command, n, letter_id, history)
  command[n + 1], command[n + 2], command[n + 3], command[n + 4] = LETTER, letter_id, HISTORY, history
  redis.call(unpack(command, 1, n + 4))
end

local function remove_archived(archive, archived, place, letter_id)
  redis.call('XDEL', archive, string.format('%.0f-0', place))
  redis.call('ZREM', archived, letter_id)
end

-- Remove the oldest letters: those whose retention (in ms) has ended, and those above the limit.
local function bound_archive(archive, archived, failed_again, now, retention, maxlen)
  local over = math.min(redis.call('ZCARD', archived) - maxlen, 2000)
  if over <= 0 then
    over = math.min(redis.call('ZCOUNT', archived, '-inf', string.format('%.0f', now - retention * 1000)), 1000)
  end
  if over > 0 then
    if redis.call('EXISTS', failed_again) == 1 then
      redis.call('HDEL', failed_again, unpack(redis.call('ZRANGE', archived, 0, over - 1)))
    end
    local newest = redis.call('ZRANGE', archived, over - 1, over - 1, 'WITHSCORES')[2]
    redis.call('XTRIM', archive, 'MINID', '=', string.format('%.0f-0', newest + 1))
    redis.call('ZREMRANGEBYRANK', archived, 0, over - 1)
  end
  for _, key in ipairs({archive, archived, failed_again}) do redis.call('PEXPIRE', key, retention) end
end

-- Why a process may not do the next step of an operation, or nothing: 'stopped' if it does not run, or is another
-- process's; 'elsewhere' if it is not at the place `after`. The server did that step twice, or has lost it in a failover.
local function refused_step(operation, owner, after)
  local held = redis.call('HMGET', operation, 'state', 'owner', 'cursor')
  if held[1] ~= 'running' or held[2] ~= owner then return 'stopped' end
  local at = held[3] and held[3] ~= '' and held[3] or '0-0'
  return after ~= '' and after ~= at and 'elsewhere'
end
