-- Let the time until a waiting entry is due pass at once: for all its handlers, so that their order stays.
--
-- KEYS  ledger, due
-- ARGV  entry id, how many ms may pass at most
-- Returns how many ms it would have waited, 0 if it does not wait; negative if that is too long: then nothing is changed.
-- include: lib/time.lua
local ledger_key, due_key, id = KEYS[1], KEYS[2], ARGV[1]
local now, due = server_ms(), redis.call('ZSCORE', due_key, id)
if not due or tonumber(due) <= now then return 0 end
local left = tonumber(due) - now
if left > tonumber(ARGV[2]) then return -left end
local stored = redis.call('HGET', ledger_key, id)
if stored then
  local ledger = cjson.decode(stored)
  for _, wait in pairs(ledger.waits or {}) do wait.due = (wait.due or now) - left end
  redis.call('HSET', ledger_key, id, cjson.encode(ledger))
end
redis.call('ZADD', due_key, string.format('%.0f', now), id)
return left
