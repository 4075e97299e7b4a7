-- How far a group has read its stream, and where the stream now begins. It changes nothing.
--
-- KEYS  stream, mark: entries that all groups have settled were recently trimmed
-- ARGV  group, how many entries a read brings at most
-- Returns false if there is no such stream or group, else {length, how many were ever added (-1: not known), first and
-- last entry id, the last id it assigned, id last delivered, how many the group has read (-1: not known), and its lag
-- (-1: not known), the next entry id to be delivered, the first id of the read after the next one, whether the mark
-- exists}; '' if there is no such entry. The read after the next one is found only if the server does not count.
local stream, group_name, batch = KEYS[1], ARGV[1], tonumber(ARGV[2])

-- include: lib/fields.lua

if redis.call('EXISTS', stream) == 0 then return false end
local group
for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local one = fields(row)
  if one.name == group_name then group = one end
end
if not group then return false end

local info = fields(redis.call('XINFO', 'STREAM', stream))
local delivered = group['last-delivered-id']
local counts = info['entries-added'] and group['entries-read']
local rows = redis.call('XRANGE', stream, '(' .. delivered, '+', 'COUNT', counts and 1 or batch + 1)
return {
  info.length, info['entries-added'] or -1,
  info['first-entry'] and info['first-entry'][1] or '', info['last-entry'] and info['last-entry'][1] or '',
  info['last-generated-id'], delivered, group['entries-read'] or -1, group.lag or -1,
  rows[1] and rows[1][1] or '', rows[batch + 1] and rows[batch + 1][1] or '',
  redis.call('EXISTS', KEYS[2]),
}
