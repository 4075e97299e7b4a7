-- Write to a stream without changing it, so that a WAIT after it covers what was written before, by whomever.
--
-- KEYS  stream
-- include: lib/last_id.lua
redis.call('XSETID', KEYS[1], last_id_of(KEYS[1]))
