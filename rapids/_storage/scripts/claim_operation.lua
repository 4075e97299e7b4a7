-- Take an operation that no process runs: its owner released it, or died, so that its lease ran out.
--
-- KEYS  for each kind, the operation that has not ended
-- ARGV  the prefix of the keys of operations, the process's token, its lease in ms, time to live in ms, the only
--       operation to take ('' for any)
-- Returns {which of the keys, the operation's id}, or nothing.
-- include: lib/time.lua
local prefix, token, lease, ttl, only = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local now = server_time()
for at, key in ipairs(KEYS) do
  local id = redis.call('GET', key)
  if id and (only == '' or only == id) then
    local operation = prefix .. id
    local held = redis.call('HMGET', operation, 'state', 'owner', 'lease_ms')
    local left = (tonumber(held[3] or '') or 0) - now
    local is_free = not held[2] or held[2] == '' or left < 0 or left > lease -- if the clock was set back
    if held[1] == 'running' and is_free then
      local until_ms = string.format('%.0f', now + lease)
      redis.call('HSET', operation, 'owner', token, 'lease_ms', until_ms, 'updated_ms', now)
      redis.call('PEXPIRE', operation, ttl)
      redis.call('PEXPIRE', key, ttl)
      return {at, id}
    end
  end
end
return false
