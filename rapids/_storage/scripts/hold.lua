-- Hold a name for one process, or renew the hold. Add what the process has counted to the rates of its group, if given.
--
-- KEYS  the key of the name, the key of the rates and the stream, if there is something to add
-- ARGV  the process's token, time to live in ms, what to add as JSON
-- Returns {1 if it is this process's, 0 if another holds it, now in ms}.
-- include: lib/time.lua
-- include: lib/rates.lua
local now = server_ms()
if KEYS[2] then add_rates(KEYS[2], KEYS[3], now, cjson.decode(ARGV[3])) end
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {0, now} end
if holder then
  redis.call('PEXPIRE', KEYS[1], ARGV[2]) -- a server without free memory still runs it, but not a SET
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return {1, now}
