-- Write to a stream without changing it, so that a WAIT after it covers all earlier writes, also by other connections.
--
-- KEYS  stream
-- include: lib/ids.lua
redis.call('XSETID', KEYS[1], last_id_of(KEYS[1]))
