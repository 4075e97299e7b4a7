-- include: lib/entry.lua

local function restore_held(stream, group, ledger, holder, listed)
  -- The waiting or parked entries that a consumer holds, listed by a function. If there is no such consumer, the group
  -- was lost and recreated without them. If there is one, they were restored before, and those that are not pending now
  -- were settled since then: in this case the function is not called, since the list may be long.
  if redis.call('XGROUP', 'CREATECONSUMER', stream, group, holder) == 0 then return end
  for _, id in ipairs(listed()) do
    if not pending_of(stream, group, id) and is_in(stream, id) then
      local stored = redis.call('HGET', ledger, id)
      local count = stored and cjson.decode(stored).n or 1
      redis.call('XCLAIM', stream, group, holder, 0, id, 'RETRYCOUNT', count, 'FORCE', 'JUSTID')
    end
  end
end
