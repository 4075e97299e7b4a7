-- One entry in a group.

-- The highest delivery count that is used. `XNACK ... FATAL` sets 2^63 - 1, and a number of Lua has 53 bits.
local MAX_DELIVERIES = 1000000000

-- The delivery count of a row of the pending list.
local function deliveries_of(row) return math.min(row[4], MAX_DELIVERIES) end

-- Its row in the pending list, {id, consumer, idle in ms, deliveries}; nil if it is not pending.
local function pending_of(stream, group, id)
  local row = redis.call('XPENDING', stream, group, id, id, 1)[1]
  if row then row[4] = deliveries_of(row) end
  return row
end

-- Delete all that is kept for it in other keys than the stream.
local function forget(ledger, due, parked, id)
  redis.call('HDEL', ledger, id)
  redis.call('ZREM', due, id)
  redis.call('HDEL', parked, id)
end
