-- Let go of what `hold` holds, if this process still does.
--
-- KEYS  the key that stands for it
-- ARGV  the process's token
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
