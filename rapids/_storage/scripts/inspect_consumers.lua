-- The consumers of a group by name, without those that hold waiting and parked entries.
--
-- KEYS  stream
-- ARGV  group, the name to begin at, and options as JSON: `most` consumers; `names`: the prefix of the keys for names
-- Returns {now in ms, consumers, more (1 | 0)}. A consumer is {name, pending, idle in ms, inactive in ms or false,
-- the token of the process that has this name or false}.
-- include: lib/time.lua
-- include: lib/names.lua
-- include: lib/fields.lua
local stream, group, from, options = KEYS[1], ARGV[1], ARGV[2], cjson.decode(ARGV[3])

-- include: lib/byte_order.lua

local rows = redis.pcall('XINFO', 'CONSUMERS', stream, group)
if rows.err then return rows end
local consumers, more = {}, 0
for _, row in ipairs(rows) do
  local is = fields(row)
  if is.name ~= WAITING and is.name ~= PARKED and not is_below(is.name, from) then
    if #consumers == options.most then
      more = 1
      break
    end
    local token = redis.call('GET', options.names .. is.name)
    consumers[#consumers + 1] = {is.name, is.pending, is.idle, is.inactive or false, token}
  end
end
return {server_ms(), consumers, more}
