-- Renew the lease of an operation.
--
-- KEYS  the operation, its errors, the one of its kind that has not ended, its replays without an outcome
-- ARGV  the process's token, its lease in ms, time to live in ms
-- Returns 1; 0 if it is no longer this process's, or does not run.
-- include: lib/time.lua
local held = redis.call('HMGET', KEYS[1], 'state', 'owner')
if held[1] ~= 'running' or held[2] ~= ARGV[1] then return 0 end
local now = server_time()
local until_ms = string.format('%.0f', now + tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'lease_ms', until_ms, 'updated_ms', now)
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[3]) end
return 1
