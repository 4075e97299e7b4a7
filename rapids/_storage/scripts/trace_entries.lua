-- Search for the entries of one correlation id, newest first. Only these are returned.
--
-- KEYS  stream
-- ARGV  the correlation id, and options as JSON:
--       `start`: the id to begin at ('(' before it: after it); `oldest`: the oldest id to read;
--       `most` entries and `most_bytes` of them to read; `most_sent` bytes to return;
--       `names`: each name to return, with the maximum bytes of its value;
--       `entries`: ids of entries; letters of these are returned too
-- The limits in bytes may be exceeded by a few entries. An entry without a correlation id has its own event id as one:
-- its handlers pass that on to what they emit.
-- Returns {now in ms, entries read, the first and the last of them or false, whether the range ended (1 | 0), the
-- stream's oldest entry or false, found}. A found entry is {id, values, lengths of the values}, in the order of the
-- names; a missing value is false.
-- include: lib/time.lua
local stream, wanted, options = KEYS[1], ARGV[1], cjson.decode(ARGV[2])
local from, of_entries = options.start, {}
for _, id in ipairs(options.entries) do of_entries[id] = true end

local looked, bytes, sent, ended, newest, last, found = 0, 0, 0, 0, false, false, {}

local function first_values(flat)
  local values = {}
  for i = 1, #flat, 2 do
    if values[flat[i]] == nil then values[flat[i]] = flat[i + 1] end
    bytes = bytes + #flat[i] + #flat[i + 1]
  end
  return values
end

local function add(id, of)
  local values, lengths = {}, {}
  for i, name in ipairs(options.names) do
    local value = of[name[1]] or false
    lengths[i] = value and #value or 0
    values[i] = value and string.sub(value, 1, name[2])
    sent = sent + (value and #values[i] or 0)
  end
  found[#found + 1] = {id, values, lengths}
end

local step = 4 -- until the size of entries is known
while looked < options.most and bytes < options.most_bytes and sent < options.most_sent and ended == 0 do
  local count = math.min(step, options.most - looked)
  local rows, before = redis.call('XREVRANGE', stream, from, options.oldest, 'COUNT', count), bytes
  for _, row in ipairs(rows) do
    local of = first_values(row[2])
    local correlation = of.correlation_id
    if not correlation or correlation == '' then correlation = of.id end
    if correlation == wanted or of_entries[of.original_msg_id or ''] then add(row[1], of) end
    newest, last = newest or row[1], row[1]
    from = '(' .. row[1]
  end
  looked = looked + #rows
  if #rows < count then ended = 1 end
  step = math.max(1, math.min(100, math.floor(1000000 * #rows / (bytes - before + 1))))
end

local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
return {
  server_ms(), looked, newest, last, ended, first and first[1] or false, found,
}
