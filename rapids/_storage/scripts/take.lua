-- Take new entries for the active consumer of a group, if its term has not ended.
--
-- KEYS  stream, replay stream, who is active, the latest term
-- ARGV  group, consumer, token of its term, how many entries of each stream
-- Returns false if the term has ended, {entries as by XREADGROUP}, or, if there are none, {{}, the id last delivered of
-- each stream}.
-- include: lib/term.lua
-- include: lib/fields.lua
if has_ended(ARGV[3], KEYS[3], KEYS[4]) then return false end
local taken = redis.call(
  'XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[4], 'STREAMS', KEYS[1], KEYS[2], '>', '>')
if taken then return {taken} end

local function delivered(stream)
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = fields(row)
    if group.name == ARGV[1] then return group['last-delivered-id'] end
  end
end

return {{}, delivered(KEYS[1]), delivered(KEYS[2])}
