-- Start an operation, unless another of its kind on this dead-letter stream has not ended.
--
-- KEYS  the operation, the one of its kind that has not ended, the operations by creation, the audit log
-- ARGV  its id, time to live in ms, how many operations to keep, the prefix of the keys of operations, actor, reason,
--       then its names and values
-- Returns the id of the other operation that has not ended, or nothing.
-- include: lib/audit.lua
-- include: lib/time.lua
-- include: lib/names.lua
local id, ttl, most, prefix = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local other = redis.call('GET', KEYS[2])
if other and redis.call('EXISTS', prefix .. other) == 1 then return other end

local now = server_time()
redis.call('HSET', KEYS[1], 'state', 'running', 'created_ms', now, 'updated_ms', now, 'done', 0, 'skipped', 0, 'failed', 0)
for i = 7, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('SET', KEYS[2], id, 'PX', ttl)

local time = redis.call('TIME')
redis.call('ZADD', KEYS[3], string.format('%.0f', time[1] * 1000000 + time[2]), id)
redis.call('PEXPIRE', KEYS[3], ttl)
local over = redis.call('ZCARD', KEYS[3]) - most
for _, old in ipairs(over > 0 and redis.call('ZRANGE', KEYS[3], 0, most) or {}) do
  local state = redis.call('HGET', prefix .. old, 'state')
  if over > 0 and state ~= 'running' and state ~= 'paused' then -- there are few of these: one of each kind
    redis.call('DEL', prefix .. old, prefix .. old .. ERRORS)
    redis.call('ZREM', KEYS[3], old)
    over = over - 1
  end
end
audit(KEYS[4], {'action', 'operation_started', 'actor', ARGV[5], 'reason', ARGV[6], 'operation', id})
return false
