-- The last id that a stream ever assigned.
--
-- KEYS  stream
-- Returns false if there is no such stream.
-- include: lib/ids.lua
return redis.call('EXISTS', KEYS[1]) == 1 and last_id_of(KEYS[1])
