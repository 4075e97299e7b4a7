-- Look event ids up among the entries after a given one.
--
-- KEYS  stream
-- ARGV  the entry id to start behind, how many entries to look at, then event ids
-- Returns {event id, entry id, ...} of those found, then as the last element 1 if every entry was looked at, else 0:
-- there were more, or some may have been trimmed away.
-- include: lib/time.lua
local stream, after, most, age = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local wanted, found, looked = {}, {}, 0

-- include: lib/fields.lua

-- Trimming takes the oldest first: while the one to start behind is there, so is all that came after it.
local function has_all()
  if #redis.call('XRANGE', stream, after, after) > 0 or redis.call('EXISTS', stream) == 0 then return true end
  local is = fields(redis.call('XINFO', 'STREAM', stream))
  if is['last-generated-id'] == after then return true end
  -- Redis 6.2 does not count what was added: no telling there.
  if after == '0-0' and is['entries-added'] == is.length then return true end
  -- And while something older than the search is there, so is all that came since that began.
  local first, began = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1], server_ms() - age
  return first and tonumber(string.match(first[1], '^%d+')) < began
end
local complete = has_all() and 1 or 0

for i = 4, #ARGV do wanted[ARGV[i]] = true end
while looked < most do
  local rows = redis.call('XRANGE', stream, '(' .. after, '+', 'COUNT', 100)
  for _, row in ipairs(rows) do
    for i = 1, #row[2], 2 do
      if row[2][i] == 'id' and wanted[row[2][i + 1]] then
        found[#found + 1] = row[2][i + 1]; found[#found + 1] = row[1]
      end
    end
    after = row[1]
  end
  looked = looked + #rows
  if #rows < 100 then
    found[#found + 1] = complete
    return found
  end
end
found[#found + 1] = 0
return found
