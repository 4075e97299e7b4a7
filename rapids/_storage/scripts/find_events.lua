-- Search for event ids among the entries after a given one.
--
-- KEYS  stream
-- ARGV  the entry id to start after, how many entries to read, then event ids
-- Returns {event id, entry id, ...} of those found, then as the last element 1 if every entry was read, else 0: there
-- were more, or some may have been trimmed.
-- include: lib/time.lua
-- include: lib/ids.lua
local stream, after, most, age = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local wanted, found, looked = {}, {}, 0

-- Trimming removes the oldest entries first: while the entry to start after exists, all later entries exist too.
local function has_all()
  if redis.call('EXISTS', stream) == 0 or is_in(stream, after) or last_id_of(stream) == after then return true end
  -- Redis 6.2 does not count added entries, so it cannot be known there.
  if after == '0-0' and added_to(stream) == redis.call('XLEN', stream) then return true end
  -- While an entry older than the search exists, all entries added since its start exist too.
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
