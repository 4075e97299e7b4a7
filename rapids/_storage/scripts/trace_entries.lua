-- Look for the entries of one correlation id, from the newest on. Only they are sent back.
--
-- KEYS  stream
-- ARGV  the id to begin at ('(' before it: behind it), the oldest to go to, the correlation id,
--       how many entries to look at, how many bytes of them, how many bytes to send back, number of names to send back,
--       these names, each with how many bytes of its value at the most, then ids of entries: letters of these are
--       wanted, too
-- Of the limits, the bytes are passed by a few entries at the most. An entry without a correlation id stands for its
-- own event id: its handlers give that to what they emit.
-- Returns {now in ms, entries looked at, the first and the last of them or false, whether the range ended (1 | 0), the
-- stream's oldest entry or false, found}. One that was found is {id, values, lengths of the values}, in the order of the
-- names; a value is false where there is none.
-- include: lib/time.lua
local stream, from, oldest, wanted = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local most, most_bytes, most_back, names = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local of_entries = {}
for i = 8 + 2 * names, #ARGV do of_entries[ARGV[i]] = true end

local looked, bytes, back, ended, newest, last, found = 0, 0, 0, 0, false, false, {}

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
  for i = 1, names do
    local value, longest = of[ARGV[6 + 2 * i]] or false, tonumber(ARGV[7 + 2 * i])
    lengths[i] = value and #value or 0
    values[i] = value and string.sub(value, 1, longest)
    back = back + (value and #values[i] or 0)
  end
  found[#found + 1] = {id, values, lengths}
end

local step = 4 -- until it is known how large the entries are
while looked < most and bytes < most_bytes and back < most_back and ended == 0 do
  local count = math.min(step, most - looked)
  local rows, before = redis.call('XREVRANGE', stream, from, oldest, 'COUNT', count), bytes
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
