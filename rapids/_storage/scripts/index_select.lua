-- Ids of letters from the index; the ids of several fingerprints are merged.
--
-- KEYS  dead-letter stream, index
-- ARGV  options, then fingerprints
-- Options, as JSON:
--   epoch         the epoch of the index from which the fingerprints come, as text
--   after, until  between which ids: after the one, until the other
--   newest_first  the order
--   count         how many ids at most
--   whole         whether to return the letters as well
--   max_bytes     after how many bytes of letters to stop
-- Returns false if the index was rebuilt since then; else {ids or letters as {id, fields}, how many ids were read, the
-- last of them, whether that was all (1 | 0)}. Ids of letters that are gone are removed from the index.
-- include: lib/entry_id.lua
local dlq, index, options = KEYS[1], KEYS[2], cjson.decode(ARGV[1])
local newest_first, count = options.newest_first, options.count
local from, to = '(' .. options.after, options['until']
if newest_first then from, to = to, from end

if (redis.call('HGET', index, 'epoch') or '0') ~= options.epoch then return false end

local function comes_first(one, other)
  if one.ms ~= other.ms then return (one.ms > other.ms) == newest_first end
  if one.seq ~= other.seq then return (one.seq > other.seq) == newest_first end
  -- Too large to compare as numbers.
  if newest_first then return is_before(other.id, one.id) end
  return is_before(one.id, other.id)
end

-- Each fingerprint has a buffer of its next ids. A heap finds the fingerprint with the first id.
local heap = {}

local function head(buffer)
  buffer.id = buffer.rows[buffer.at][1]
  local ms, seq = string.match(buffer.id, '^(%d+)-(%d+)$')
  buffer.ms, buffer.seq = tonumber(ms), tonumber(seq)
end

local function fill(buffer)
  local command = newest_first and 'XREVRANGE' or 'XRANGE'
  local rows = redis.call(command, buffer.key, buffer.from, to, 'COUNT', buffer.size)
  buffer.rows, buffer.at, buffer.more = rows, 1, #rows == buffer.size
  if #rows > 0 then buffer.from = '(' .. rows[#rows][1] end
  buffer.size = math.min(buffer.size * 2, 500)
end

local function sink(i)
  while true do
    local left, right, first = 2 * i, 2 * i + 1, i
    if heap[left] and comes_first(heap[left], heap[first]) then first = left end
    if heap[right] and comes_first(heap[right], heap[first]) then first = right end
    if first == i then return end
    heap[i], heap[first] = heap[first], heap[i]
    i = first
  end
end

for i = 2, #ARGV do
  local buffer = {key = index .. ':' .. ARGV[i], from = from, size = math.max(4, math.ceil(count / (#ARGV - 1)))}
  fill(buffer)
  if #buffer.rows > 0 then
    head(buffer)
    heap[#heap + 1] = buffer
  end
end
for i = math.floor(#heap / 2), 1, -1 do sink(i) end

local found, looked, last, bytes = {}, 0, options.after, 0
while heap[1] and #found < count and looked < 2 * count + 100 and bytes < options.max_bytes do
  local buffer = heap[1]
  local id = buffer.id
  last, looked = id, looked + 1
  if not options.whole then
    found[#found + 1] = id
  else
    local letter = redis.call('XRANGE', dlq, id, id)[1]
    if letter then
      found[#found + 1] = letter
      for _, part in ipairs(letter[2]) do bytes = bytes + #part end
    elseif redis.pcall('XDEL', buffer.key, id) == 1 then
      redis.call('HINCRBY', index, 'entries', -1)
    end
  end
  buffer.at = buffer.at + 1
  if buffer.at > #buffer.rows and buffer.more then fill(buffer) end
  if buffer.at > #buffer.rows then
    heap[1] = heap[#heap]
    heap[#heap] = nil
  else
    head(buffer)
  end
  if heap[1] then sink(1) end
end
return {found, looked, last, heap[1] and 0 or 1}
