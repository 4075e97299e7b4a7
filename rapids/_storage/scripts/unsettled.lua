-- What a group has not settled of the entries after an id, at one moment. Parked entries are settled.
--
-- KEYS  stream, due
-- ARGV  group, the id, how many entries of each kind to return at most
-- Returns {last id, now in ms, {id, consumer, deliveries, due in ms or false} of each pending entry, ids that were not
-- delivered}.
-- include: lib/entry_id.lua
-- include: lib/entry.lua
-- include: lib/ids.lua
-- include: lib/names.lua
-- include: lib/time.lua
local stream, due_key, group, after, most = KEYS[1], KEYS[2], ARGV[1], ARGV[2], tonumber(ARGV[3])
if redis.call('EXISTS', stream) == 0 then return {'0-0', server_ms(), {}, {}} end
local pending, undelivered, delivered = {}, {}, after
local known = group_of(stream, group)
if known then
  if is_before(after, known['last-delivered-id']) then delivered = known['last-delivered-id'] end
  local from = '(' .. after
  repeat
    local page = redis.call('XPENDING', stream, group, from, '+', 1000)
    for _, row in ipairs(page) do
      if row[2] ~= PARKED and #pending < most then
        pending[#pending + 1] = {row[1], row[2], deliveries_of(row), redis.call('ZSCORE', due_key, row[1])}
      end
      from = '(' .. row[1]
    end
  until #page < 1000
end
for _, entry in ipairs(redis.call('XRANGE', stream, '(' .. delivered, '+', 'COUNT', most)) do
  undelivered[#undelivered + 1] = entry[1]
end
return {last_id_of(stream), server_ms(), pending, undelivered}
