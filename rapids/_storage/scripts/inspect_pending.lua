-- Pending entries of a group, in the order of their ids.
--
-- KEYS  stream, ledger, due, parked
-- ARGV  group, the only consumer to return ('' for all), and options as JSON:
--       `start`: the id to begin at; `end_`: the id to end at ('' for the last pending one); `most` entries;
--       `names`: the prefix of the keys for names of consumers
-- Returns {now in ms, the id to end at, entries}. An entry is {id, consumer, idle in ms, delivery count, ledger or
-- false, when it is due in ms or false, why it is parked or false, whether its consumer lives (1 | 0)}.
-- include: lib/time.lua
-- include: lib/names.lua
-- include: lib/entry.lua
local stream, ledger, due, parked = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, consumer, options = ARGV[1], ARGV[2], cjson.decode(ARGV[3])

if redis.call('EXISTS', stream) == 0 then return redis.error_reply('ERR no such key') end
local all = redis.pcall('XPENDING', stream, group)
if all.err then return all end
local end_ = options.end_ ~= '' and options.end_ or all[3] or '0-0'
local command = {'XPENDING', stream, group, options.start, end_, options.most}
if consumer ~= '' then command[#command + 1] = consumer end
local rows = redis.pcall(unpack(command))
if rows.err then return rows end

local entries, lives = {}, {}
for _, row in ipairs(rows) do
  local id, name = row[1], row[2]
  if not lives[name] then lives[name] = redis.call('EXISTS', options.names .. name) end
  entries[#entries + 1] = {
    id, name, row[3], deliveries_of(row), redis.call('HGET', ledger, id),
    name == WAITING and redis.call('ZSCORE', due, id),
    name == PARKED and redis.call('HGET', parked, id), lives[name],
  }
end
return {server_ms(), end_, entries}
