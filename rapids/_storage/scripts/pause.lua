-- Pause a group. If it is paused already, the first pause stays.
--
-- KEYS  stream, paused, audit log
-- ARGV  group, actor, reason
-- Returns {actor, reason, since in ms} of the current pause; nothing if there is no such group, an error if there is no
-- such stream.
-- include: lib/fields.lua
-- include: lib/audit.lua
-- include: lib/time.lua

local found = false
for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  found = found or fields(row).name == ARGV[1]
end
if not found then return false end
if redis.call('EXISTS', KEYS[2]) == 0 then
  local now = server_ms()
  redis.call('HSET', KEYS[2], 'actor', ARGV[2], 'reason', ARGV[3], 'since_ms', string.format('%.0f', now))
  audit(KEYS[3], {'action', 'group_paused', 'actor', ARGV[2], 'reason', ARGV[3], 'group', ARGV[1]})
end
return redis.call('HMGET', KEYS[2], 'actor', 'reason', 'since_ms')
