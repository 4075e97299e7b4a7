-- What a group has of one entry.

-- Its row in the pending list, {id, consumer, idle in ms, deliveries}; nil where it is not pending.
local function pending_of(stream, group, id) return redis.call('XPENDING', stream, group, id, id, 1)[1] end

local function is_in(stream, id) return #redis.call('XRANGE', stream, id, id) > 0 end

-- Forget all that is kept of it beside the stream.
local function forget(ledger, due, parked, id)
  redis.call('HDEL', ledger, id)
  redis.call('ZREM', due, id)
  redis.call('HDEL', parked, id)
end
