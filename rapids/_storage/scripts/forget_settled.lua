-- Delete what is kept for entries that were acknowledged without it: by a consumer on rapids-streams that claimed an
-- entry while it waited or was parked, or by an operator.
--
-- KEYS  stream, ledger, due, parked, how far the waiting and parked entries of a lost group are restored
-- ARGV  group, then ids
-- Returns the ids whose data was deleted.
-- include: lib/names.lua
-- include: lib/entry.lua
local stream, ledger_key, due_key, parked_key, group = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1]
local holding, forgotten = {}, {}
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do holding[row[2]] = true end
if redis.call('HEXISTS', KEYS[5], PARKED) == 1 then holding[PARKED] = nil end

for i = 2, #ARGV do
  local id = ARGV[i]
  local is_pending = pending_of(stream, group, id) ~= nil
  -- Waiting entries are checked when they are due. A group that was recreated without its parked entries has no
  -- consumer for them; they are restored later.
  local waits = redis.call('ZSCORE', due_key, id)
  local is_parked = redis.call('HEXISTS', parked_key, id) == 1 and not holding[PARKED]
  if not is_pending and not waits and not is_parked then
    forget(ledger_key, due_key, parked_key, id)
    forgotten[#forgotten + 1] = id
  end
end
return forgotten
