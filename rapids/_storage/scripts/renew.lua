-- Renew the leases of entries that this consumer still has. XCLAIM alone would also take entries that another consumer
-- has claimed.
--
-- KEYS  stream
-- ARGV  group, consumer, then ids
-- Returns the ids that this consumer no longer has.
-- include: lib/entry.lua
-- include: lib/ids.lua
local ours, lost = {}, {}
for i = 3, #ARGV do
  local pending = pending_of(KEYS[1], ARGV[1], ARGV[i])
  if pending and pending[2] == ARGV[2] then
    ours[#ours + 1] = ARGV[i]
  else
    lost[#lost + 1] = ARGV[i]
  end
end
-- JUSTID: the delivery count does not change. A trimmed entry stays pending until it is settled: XCLAIM would end that.
for _, id in ipairs(existing(KEYS[1], ours)) do
  redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'JUSTID')
end
return lost
