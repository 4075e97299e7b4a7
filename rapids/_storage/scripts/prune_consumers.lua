-- Remove consumers that are gone and own nothing. XGROUP DELCONSUMER deletes a consumer's pending entries, so the check
-- and the removal are one step.
--
-- KEYS  stream, then for each consumer the key by which a living process holds its name
-- ARGV  group, least idle time in ms, then the consumers' names
-- Returns the names removed.
-- include: lib/fields.lua
local stream, group, silence = KEYS[1], ARGV[1], tonumber(ARGV[2])
local gone, removed = {}, {}
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
  local consumer = fields(row)
  gone[consumer.name] = consumer.pending == 0 and consumer.idle >= silence
end
for i = 3, #ARGV do
  if gone[ARGV[i]] and redis.call('EXISTS', KEYS[i - 1]) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', stream, group, ARGV[i])
    removed[#removed + 1] = ARGV[i]
  end
end
return removed
