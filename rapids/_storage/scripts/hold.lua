-- Hold a name for one process, or renew the hold.
--
-- KEYS  the key of the name
-- ARGV  the process's token, time to live in ms
-- Returns {1 if it is this process's, 0 if another holds it, now in ms}.
-- include: lib/time.lua
local now = server_ms()
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {0, now} end
if holder then
  redis.call('PEXPIRE', KEYS[1], ARGV[2]) -- a server without free memory still runs it, but not a SET
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return {1, now}
