-- Waiting entries of a group, in the order in which they are due.
--
-- KEYS  stream, ledger, due
-- ARGV  group, and options as JSON: `after`: due time and id of the entry to begin after ('' and '' for the first);
--       `latest`: the latest due time ('' for that of the present last entry); `most` entries
-- Returns {now in ms, the latest time, entries, more (1 | 0)}. An entry is {id, when it is due in ms, consumer or false
-- if it is not pending, idle in ms, delivery count, ledger or false}.
-- include: lib/time.lua
-- include: lib/entry.lua
local stream, ledger, due = KEYS[1], KEYS[2], KEYS[3]
local group, options = ARGV[1], cjson.decode(ARGV[2])
local score, member, most = options.after[1], options.after[2], options.most

if redis.call('EXISTS', stream) == 0 then return redis.error_reply('ERR no such key') end
local pending = redis.pcall('XPENDING', stream, group, '-', '+', 1)
if pending.err then return pending end

-- include: lib/byte_order.lua

local function rank_after()
  if score == '' then return 0 end
  local low = redis.call('ZCOUNT', due, '-inf', '(' .. score)
  local high = low + redis.call('ZCOUNT', due, score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_below(member, redis.call('ZRANGE', due, middle, middle)[1]) then high = middle else low = middle + 1 end
  end
  return low
end

local latest = options.latest
if latest == '' then latest = redis.call('ZRANGE', due, -1, -1, 'WITHSCORES')[2] or '0' end
local first, last = rank_after(), redis.call('ZCOUNT', due, '-inf', latest) - 1
local entries, more = {}, 0
if first <= last then
  local found = redis.call('ZRANGE', due, first, math.min(first + most - 1, last), 'WITHSCORES')
  if first + most <= last then more = 1 end
  for i = 1, #found, 2 do
    local id = found[i]
    local row = pending_of(stream, group, id) or {id, false, 0, 0}
    entries[#entries + 1] = {id, found[i + 1], row[2], row[3], row[4], redis.call('HGET', ledger, id)}
  end
end
return {server_ms(), latest, entries, more}
