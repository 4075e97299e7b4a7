-- End a group's pause.
--
-- KEYS  paused
-- Returns {actor, reason, since in ms} of the pause that ended; nothing if it was not paused.
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local pause = redis.call('HMGET', KEYS[1], 'actor', 'reason', 'since_ms')
redis.call('DEL', KEYS[1])
return pause
