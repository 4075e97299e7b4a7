-- Recreate a lost group and begin to restore its waiting and parked entries, which are recorded in other keys than the
-- stream. It is one step: a consumer that looked for due entries in between would treat them as settled. If something
-- else recreated the group without them, they are restored as well.
--
-- KEYS  stream, ledger, due, parked, when it was recreated, how far it is restored
-- ARGV  group, the entry id to resume after, whether the lost group had delivered everything before it (1 | 0),
--       for how many ms to remember that it was recreated
-- Returns 1, or 0 if the group existed already. Then the group also moves forward to this entry id, if it was created
-- at an earlier one: what one process had not read, another process may have read, and holds it.
-- include: lib/entry_id.lua
-- include: lib/fields.lua
-- include: lib/holding_consumers.lua
-- include: lib/time.lua
-- include: lib/names.lua

local function advance_to(id)
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local group = fields(row)
    if group.name == ARGV[1] and is_before(group['last-delivered-id'], id) then
      redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], id)
    end
  end
end

local created = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2], 'MKSTREAM')
if created.err then
  if not string.find(created.err, 'BUSYGROUP', 1, true) then return created end
  if ARGV[3] == '1' then advance_to(ARGV[2]) end
end
if not created.err then
  redis.call('SET', KEYS[5], server_time(), 'PX', ARGV[4])
end
-- A consumer that would hold nothing is not created.
if redis.call('EXISTS', KEYS[3]) == 1 then
  begin_restoring(KEYS[1], ARGV[1], KEYS[6], WAITING, KEYS[3])
end
if redis.call('EXISTS', KEYS[4]) == 1 then
  begin_restoring(KEYS[1], ARGV[1], KEYS[6], PARKED, KEYS[4])
end
return created.err and 0 or 1
