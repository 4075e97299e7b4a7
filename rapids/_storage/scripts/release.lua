-- Release what `hold` holds, if this process still holds it.
--
-- KEYS  the key of the name or group
-- ARGV  the process's token
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
