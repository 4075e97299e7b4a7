-- Let go of a consumer name, if this process still holds it.
--
-- KEYS  the name's key
-- ARGV  the process's token
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
