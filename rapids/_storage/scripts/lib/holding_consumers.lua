-- Restoring the waiting and parked entries of a group that was lost and recreated without them: in steps, since there
-- may be any number of them and the server does nothing else during a script. While it lasts, a hash has a cursor for
-- each consumer that does not hold all of its entries yet.
-- include: lib/entry.lua
-- include: lib/names.lua

local RESTORED_AT_ONCE = 200

-- Begin with what a key records, if the group has no such consumer. If it has one, they were restored before, and those that are not pending now
-- were settled since then.
local function begin_restoring(stream, group, restoring, holder, held)
  if redis.call('XGROUP', 'CREATECONSUMER', stream, group, holder) == 1 and redis.call('EXISTS', held) == 1 then
    redis.call('HSET', restoring, holder, 0)
  end
end

local function restore_some(stream, group, ledger, restoring, holder, command, key)
  local cursor = redis.call('HGET', restoring, holder)
  if not cursor then return false end
  local page = redis.call(command, key, cursor, 'COUNT', RESTORED_AT_ONCE)
  for i = 1, #page[2], 2 do
    local id = page[2][i]
    if not pending_of(stream, group, id) then -- and only if it is still in the stream, which XCLAIM finds out
      local stored = redis.call('HGET', ledger, id)
      local count = stored and cjson.decode(stored).n or 1
      redis.call('XCLAIM', stream, group, holder, 0, id, 'RETRYCOUNT', count, 'FORCE', 'JUSTID')
    end
  end
  if page[1] == '0' then
    redis.call('HDEL', restoring, holder)
    return false
  end
  redis.call('HSET', restoring, holder, page[1])
  return true
end

-- One step for each consumer. Returns whether there is more to restore.
local function restore_step(stream, group, ledger, due, parked, restoring)
  if redis.call('EXISTS', restoring) == 0 then return false end
  local waiting = restore_some(stream, group, ledger, restoring, WAITING, 'ZSCAN', due)
  local others = restore_some(stream, group, ledger, restoring, PARKED, 'HSCAN', parked)
  return waiting or others
end
