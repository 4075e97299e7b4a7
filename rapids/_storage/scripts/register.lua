-- Register a consumer's entries with a recreated group, if they are in the stream and no consumer has them.
--
-- KEYS  stream
-- ARGV  group, consumer, then ids
-- Returns {ours, others}: the ids that are now this consumer's, and those that another consumer has.
-- include: lib/entry.lua
local ours, others = {}, {}
for i = 3, #ARGV do
  local pending = pending_of(KEYS[1], ARGV[1], ARGV[i])
  if pending and pending[2] ~= ARGV[2] then
    others[#others + 1] = ARGV[i]
  elseif pending then
    ours[#ours + 1] = ARGV[i]
  elseif #redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'FORCE', 'JUSTID') > 0 then
    ours[#ours + 1] = ARGV[i]
  end
end
return {ours, others}
