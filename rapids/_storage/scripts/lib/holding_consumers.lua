-- include: lib/entry.lua

local function give_back(stream, group, ledger, keeper, listed)
  -- What a consumer keeps, waiting or parked, as a function lists it. Where there is no such consumer, the group was
  -- lost and made again by somebody who does not know what was kept in it. Where there is one, it was given back
  -- before, and what is not pending now was settled since: then the list, which may be long, is not asked for.
  if redis.call('XGROUP', 'CREATECONSUMER', stream, group, keeper) == 0 then return end
  for _, id in ipairs(listed()) do
    if not pending_of(stream, group, id) and is_in(stream, id) then
      local stored = redis.call('HGET', ledger, id)
      local count = stored and cjson.decode(stored).n or 1
      redis.call('XCLAIM', stream, group, keeper, 0, id, 'RETRYCOUNT', count, 'FORCE', 'JUSTID')
    end
  end
end
