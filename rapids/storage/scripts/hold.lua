-- Hold a consumer name for one process, or keep holding it.
--
-- KEYS  the name's key
-- ARGV  the process's token, time to live in ms
-- Returns 1 if the name is this process's, 0 if another holds it.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
