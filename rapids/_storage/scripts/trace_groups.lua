-- The states of some entries in each group of a stream.
--
-- KEYS  stream
-- ARGV  how many groups at most, the prefixes of these keys: ledgers, when entries are due, why they are parked (all
--       before the group's name), and names of consumers (before group, colon, name); then the entries
-- Returns {groups, more (1 | 0)}, nothing if there is no stream. A group is {name, entries}, an entry {state, pending
-- entry as inspect_pending returns it, or false}. The state is `undelivered`, `pending` or `settled`.
-- include: lib/names.lua
-- include: lib/entry.lua
local stream, most, ledger, due, parked, names = KEYS[1], tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]

-- include: lib/fields.lua

-- include: lib/entry_id.lua

local function made_of(id, group)
  local row = pending_of(stream, group.name, id)
  if not row then
    return {is_before(group['last-delivered-id'], id) and 'undelivered' or 'settled', false}
  end
  local name = row[2]
  return {'pending', {
    id, name, row[3], row[4], redis.call('HGET', ledger .. group.name, id),
    name == WAITING and redis.call('ZSCORE', due .. group.name, id),
    name == PARKED and redis.call('HGET', parked .. group.name, id),
    redis.call('EXISTS', names .. group.name .. ':' .. name),
  }}
end

if redis.call('EXISTS', stream) == 0 then return {{}, 0} end
local groups, more = {}, 0
for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  if #groups == most then
    more = 1
    break
  end
  local group, entries = fields(row), {}
  for i = 6, #ARGV do entries[#entries + 1] = made_of(ARGV[i], group) end
  groups[#groups + 1] = {group.name, entries}
end
return {groups, more}
