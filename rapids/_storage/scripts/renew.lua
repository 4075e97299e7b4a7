-- Renew the leases of entries that this consumer still has. XCLAIM alone would also take entries that another consumer
-- has claimed.
--
-- KEYS  stream
-- ARGV  group, consumer, then ids
-- Returns the ids that this consumer no longer has.
-- include: lib/entry.lua
local lost = {}
for i = 3, #ARGV do
  local pending = pending_of(KEYS[1], ARGV[1], ARGV[i])
  if pending and pending[2] == ARGV[2] then
    -- JUSTID: the delivery count does not change. A trimmed entry stays pending until it is settled.
    if is_in(KEYS[1], ARGV[i]) then
      redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    end
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
