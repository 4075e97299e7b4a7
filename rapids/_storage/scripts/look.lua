-- What a worker looks at every second: whether its group is paused, what is pending, and when the next waiting entry is due.
--
-- KEYS  the pause; then for each source its stream, due, and how far the entries of a lost group are restored
-- ARGV  group
-- Returns {pause, now, pending, wait, pending, wait}: now is the time in ms; of each source, pending is as XPENDING returns
-- it, or its error, and wait the milliseconds until an entry is due, 0 also while entries are restored, or -1.
-- include: lib/time.lua
local now = server_ms()
local found = {redis.pcall('HMGET', KEYS[1], 'actor', 'reason', 'since_ms'), now}
for i = 2, #KEYS, 3 do
  local wait = -1
  local first = redis.call('ZRANGE', KEYS[i + 1], 0, 0, 'WITHSCORES')
  if #first > 0 then wait = math.max(0, tonumber(first[2]) - now) end
  if redis.call('EXISTS', KEYS[i + 2]) == 1 then wait = 0 end
  found[#found + 1] = redis.pcall('XPENDING', KEYS[i], ARGV[1])
  found[#found + 1] = wait
end
return found
