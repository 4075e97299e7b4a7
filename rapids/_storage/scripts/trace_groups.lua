-- The states of some entries in each group of a stream.
--
-- KEYS  stream
-- ARGV  options as JSON: `most` groups; `entries`: their ids; the prefixes of keys: `ledger`, `due` and `parked`, all
--       before the group's name, and `names` of consumers (before group, colon, name)
-- Returns {groups, more (1 | 0)}, nothing if there is no stream. A group is {name, entries}, an entry {state, pending
-- entry as inspect_pending returns it, or false}. The state is `undelivered`, `pending` or `settled`.
-- include: lib/names.lua
-- include: lib/entry.lua
local stream, options = KEYS[1], cjson.decode(ARGV[1])

-- include: lib/fields.lua

-- include: lib/entry_id.lua

local function state_of(id, group)
  local row = pending_of(stream, group.name, id)
  if not row then
    return {is_before(group['last-delivered-id'], id) and 'undelivered' or 'settled', false}
  end
  local name = row[2]
  return {'pending', {
    id, name, row[3], row[4], redis.call('HGET', options.ledger .. group.name, id),
    name == WAITING and redis.call('ZSCORE', options.due .. group.name, id),
    name == PARKED and redis.call('HGET', options.parked .. group.name, id),
    redis.call('EXISTS', options.names .. group.name .. ':' .. name),
  }}
end

if redis.call('EXISTS', stream) == 0 then return {{}, 0} end
local groups, more = {}, 0
for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  if #groups == options.most then
    more = 1
    break
  end
  local group, entries = fields(row), {}
  for i, id in ipairs(options.entries) do entries[i] = state_of(id, group) end
  groups[#groups + 1] = {group.name, entries}
end
return {groups, more}
