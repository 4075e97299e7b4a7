-- Announce a router to other processes, and forget the routers that were not announced for long.
--
-- KEYS  the announced routers
-- ARGV  the router, for how many ms it is remembered, how many routers are
-- include: lib/time.lua
local now, remembered_ms = server_ms(), tonumber(ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - remembered_ms)
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[3])
redis.call('PEXPIRE', KEYS[1], remembered_ms)
return 1
