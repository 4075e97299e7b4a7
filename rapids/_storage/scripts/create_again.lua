-- Make a group that was lost again, and give it back the entries that wait in it or are parked: those are told beside
-- the stream. In one step, since whoever looked for due entries in between would take them for settled. A group that
-- somebody else made again, without them, is given them back as well.
--
-- KEYS  stream, ledger, due, parked, when it was made again
-- ARGV  group, the entry id to resume behind, whether the lost group had given out everything before it (1 | 0),
--       for how many ms it is known that it was made again
-- Returns 1, or 0 if the group was there already. Then it also goes on to this entry id, if it was made at an earlier
-- one: what one process had not read another may have, and holds it.
-- include: lib/entry_id.lua
-- include: lib/fields.lua
-- include: lib/holding_consumers.lua
-- include: lib/time.lua
-- include: lib/names.lua

local function go_on_to(id)
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local group = fields(row)
    if group.name == ARGV[1] and is_before(group['last-delivered-id'], id) then
      redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], id)
    end
  end
end

local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2], 'MKSTREAM')
if made.err then
  if not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
  if ARGV[3] == '1' then go_on_to(ARGV[2]) end
end
if not made.err then
  redis.call('SET', KEYS[5], server_time(), 'PX', ARGV[4])
end
-- A consumer that would keep nothing is not made.
if redis.call('EXISTS', KEYS[3]) == 1 then
  give_back(KEYS[1], ARGV[1], KEYS[2], WAITING, function() return redis.call('ZRANGE', KEYS[3], 0, -1) end)
end
if redis.call('EXISTS', KEYS[4]) == 1 then
  give_back(KEYS[1], ARGV[1], KEYS[2], PARKED, function() return redis.call('HKEYS', KEYS[4]) end)
end
return made.err and 0 or 1
