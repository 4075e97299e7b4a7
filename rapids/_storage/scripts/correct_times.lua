-- Correct the times of entries that a consumer got later than now, since the server's clock was set back: its lease
-- begins again, and a waiting entry is due. Without ids, find such entries: the server says 0 for their idle time, but
-- also for one of this very millisecond, so they are corrected only if it still says so some milliseconds later.
--
-- KEYS  stream, ledger, due
-- ARGV  group, consumer, where to begin ('-', or '(' and an entry id), how many entries to look at, then ids to correct
-- Returns {where to continue, or '' at the end, the ids found or corrected}.
-- include: lib/entry.lua
-- include: lib/ids.lua
-- include: lib/names.lua
-- include: lib/time.lua
local stream, ledger_key, due_key = KEYS[1], KEYS[2], KEYS[3]
local group, consumer, after, most = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local found = {}

local function make_due(id)
  local now = server_ms()
  local due = redis.call('ZSCORE', due_key, id)
  if not due or tonumber(due) <= now then return end
  local stored = redis.call('HGET', ledger_key, id)
  if stored then
    local ledger = cjson.decode(stored)
    for _, wait in pairs(ledger.waits or {}) do wait.due = math.min(wait.due or now, now) end
    redis.call('HSET', ledger_key, id, cjson.encode(ledger))
  end
  redis.call('ZADD', due_key, string.format('%.0f', now), id)
end

for i = 5, #ARGV do
  local id = ARGV[i]
  local entry = pending_of(stream, group, id)
  if entry and entry[2] == consumer and entry[3] == 0 and is_in(stream, id) then
    if consumer == WAITING then make_due(id) end
    redis.call('XCLAIM', stream, group, consumer, 0, id, 'JUSTID')
    found[#found + 1] = id
  end
end
if #ARGV > 4 then return {'', found} end

local page = redis.call('XPENDING', stream, group, after, '+', most, consumer)
for _, row in ipairs(page) do
  if row[3] == 0 then found[#found + 1] = row[1] end
end
return {#page == most and '(' .. page[#page][1] or '', found}
