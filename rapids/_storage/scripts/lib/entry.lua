-- One entry in a group.

-- Its row in the pending list, {id, consumer, idle in ms, deliveries}; nil if it is not pending.
local function pending_of(stream, group, id) return redis.call('XPENDING', stream, group, id, id, 1)[1] end

-- Delete all that is kept for it in other keys than the stream.
local function forget(ledger, due, parked, id)
  redis.call('HDEL', ledger, id)
  redis.call('ZREM', due, id)
  redis.call('HDEL', parked, id)
end
