-- How far a group has read its stream, and where the stream now begins.
--
-- KEYS  stream, mark: entries that all groups have settled were recently trimmed
-- ARGV  group, how many entries a read brings at most, an id that was the first one ('' if none is known)
-- Returns false if there is no such stream or group, else {length, how many were ever added (-1: not known), first and
-- last entry id, the last id it assigned, id last delivered, how many the group has read (-1: not known), and its lag
-- (-1: not known), the next entry id to be delivered, the first id of the read after the next one, whether the mark
-- exists, whether nothing after the entry last delivered can have been trimmed}; '' if there is no such entry. If the
-- server counts and that entry is still there, nobody needs the ids for which an entry must be read. The read after the
-- next one is found only if the server does not count.
-- include: lib/ids.lua
-- include: lib/entry_id.lua
local stream, group_name, batch, known_first = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]

if redis.call('EXISTS', stream) == 0 then return false end
local group = group_of(stream, group_name)
if not group then return false end

local length, delivered, read, lag = redis.call('XLEN', stream), group['last-delivered-id'], group['entries-read'], group.lag
local last_assigned, added, first, last, next_, later, is_whole = delivered, -1, '', '', '', '', 0
-- A lag of 0 says that the id last delivered is the last one, unless the stream was emptied.
if length == 0 then
  local info = fields(redis.call('XINFO', 'STREAM', stream))
  last_assigned, added = info['last-generated-id'], info['entries-added'] or -1
elseif read and lag == 0 then
  added, is_whole = read, 1
else
  last_assigned = last_id_of(stream)
  local has = {}
  for _, id in ipairs(existing(stream, {delivered, last_assigned, known_first ~= '' and known_first or nil})) do
    has[id] = true
  end
  if has[delivered] then is_whole = 1 end
  if has[last_assigned] then last = last_assigned end
  if read and lag and is_whole == 1 then -- otherwise some servers do not count into the lag what was trimmed
    added = read + lag
  else
    if read ~= nil then -- Redis 6.2 does not count
      added = added_to(stream) or fields(redis.call('XINFO', 'STREAM', stream))['entries-added']
    end
    first = has[known_first] and known_first or redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][1]
    if last == '' then last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1][1] end
    if is_before(delivered, last) then
      local rows = redis.call('XRANGE', stream, '(' .. delivered, '+', 'COUNT', read and 1 or batch + 1)
      next_ = rows[1][1]
      later = rows[batch + 1] and rows[batch + 1][1] or ''
    end
  end
end
return {
  length, added, first, last, last_assigned, delivered, read or -1, lag or -1, next_, later,
  redis.call('EXISTS', KEYS[2]), is_whole,
}
