-- End a group's pause.
--
-- KEYS  paused, audit log
-- ARGV  group, actor, reason
-- Returns {actor, reason, since in ms} of the pause that ended; nothing if it was not paused.
-- include: lib/audit.lua
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local pause = redis.call('HMGET', KEYS[1], 'actor', 'reason', 'since_ms')
redis.call('DEL', KEYS[1])
audit(KEYS[2], {
  'action', 'group_resumed', 'actor', ARGV[2], 'reason', ARGV[3], 'group', ARGV[1],
  'paused_by', pause[1] or '', 'paused_because', pause[2] or '',
})
return pause
