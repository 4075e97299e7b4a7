-- The index of a dead-letter stream: for each fingerprint (what letters of one cause have in common) a stream whose
-- entry ids are those of its letters. A stream needs a tenth of the memory of a sorted set for an id.
--
-- It has every letter up to the id `to` in the hash `index`, in order. Letters that were written without it are added
-- at the next write or read. Ids of trimmed letters stay until they are more than the existing letters, or until they
-- are read. Nothing here may prevent a letter from being written or moved: an index with errors is rebuilt.
-- include: lib/entry_id.lua
-- include: lib/ids.lua
-- include: lib/names.lua

local MAX_PART, MAX_FINGERPRINTS = 200, 1000

-- A field as part of a description, whose parts are netstrings.
local function part(value)
  if not value then return '0', '' end
  if #value > MAX_PART then value = string.sub(value, 1, MAX_PART) end
  return #value, value
end

-- It is concatenated in one step: this runs for each of many letters, and intermediate strings would be garbage.
local function description_of(values)
  local n1, group = part(values.original_group)
  local n2, handler = part(values.handler)
  local n3, event_type = part(values.event_type)
  local n4, reason = part(values.reason)
  local n5, error_type = part(values.error_type)
  local n6, position = part(values.position)
  return n1 .. ':' .. group .. ',' .. n2 .. ':' .. handler .. ',' .. n3 .. ':' .. event_type .. ','
    .. n4 .. ':' .. reason .. ',' .. n5 .. ':' .. error_type .. ',' .. n6 .. ':' .. position .. ','
end

local function describe(letter)
  local values = {}
  for i = 1, #letter, 2 do
    if values[letter[i]] == nil then values[letter[i]] = letter[i + 1] end
  end
  return description_of(values)
end

local OTHERS = 'others' -- fingerprints above the limit

local known_names = {} -- by description

local function name_of(description)
  if not redis.sha1hex then return OTHERS end -- fakeredis, used in fast tests, does not have it
  local name = known_names[description]
  if not name then
    name = string.sub(redis.sha1hex(description), 1, 16)
    known_names[description] = name
  end
  return name
end

local function fingerprint_in(values) return name_of(description_of(values)) end

local function fingerprint_of(letter) return name_of(describe(letter)) end

local function fingerprints_of(index)
  local names = redis.call('HKEYS', index .. FINGERPRINTS)
  names[#names + 1] = OTHERS
  return names
end

local function fingerprint_for(index, letter)
  local all, description = index .. FINGERPRINTS, describe(letter)
  local name = name_of(description)
  if name ~= OTHERS and redis.call('HEXISTS', all, name) == 0 then
    if redis.call('HLEN', all) >= MAX_FINGERPRINTS then return OTHERS end
    redis.call('HSET', all, name, description)
    redis.call('UNLINK', index .. ':' .. name) -- it exists if the names were lost
  end
  return name
end

-- The index is marked as invalid before any part of it is deleted: if its slot is being moved, this may end half way.
-- The first command is one that a server without free memory still runs.
local function drop_index(index)
  redis.call('HDEL', index, 'to', 'entries')
  redis.call('HINCRBY', index, 'epoch', 1)
  local ok, names = pcall(fingerprints_of, index)
  for _, name in ipairs(ok and names or {OTHERS}) do redis.call('UNLINK', index .. ':' .. name) end
  redis.call('UNLINK', index .. FINGERPRINTS)
end

-- Whether an error is one of these answers of the server.
local function is_one_of(answers, err)
  local text = type(err) == 'table' and err.err or tostring(err)
  for _, answer in ipairs(answers) do
    if string.find(text, answer, 1, true) then return true end
  end
  return false
end

local REFUSALS = {'OOM ', 'MISCONF ', 'NOREPLICAS ', 'READONLY '} -- refused writes, which are no error of the index

-- Work on the index. Even if it fails, letters are written and read. Returns what the work returned, if it was done.
local function with_index(index, work, ...)
  local ok, found = pcall(work, ...)
  if ok then return found end
  if not is_one_of(REFUSALS, found) then pcall(drop_index, index) end
end

-- Index later letters, up to a number of letters and about a number of bytes of them. Returns whether that was all.
local function catch_up(dlq, index, max_letters, max_bytes)
  local to = redis.call('HGET', index, 'to') or '0-0'
  local first, looked, bytes, complete = to, 0, 0, false
  while not complete and looked < max_letters and bytes < max_bytes do
    local count = math.min(10, max_letters - looked)
    local rows = redis.call('XRANGE', dlq, '(' .. to, '+', 'COUNT', count)
    for _, row in ipairs(rows) do
      redis.call('XADD', index .. ':' .. fingerprint_for(index, row[2]), row[1], 'l', '')
      to = row[1]
      for _, value in ipairs(row[2]) do bytes = bytes + #value end
    end
    looked = looked + #rows
    complete = #rows < count
  end
  if to ~= first then
    redis.call('HINCRBY', index, 'entries', looked)
    redis.call('HSET', index, 'to', to)
  end
  return complete
end

-- Remove trimmed letters from the index, and fingerprints that no longer have letters.
local function sweep(dlq, index)
  local oldest, entries = redis.call('XRANGE', dlq, '-', '+', 'COUNT', 1)[1], 0
  for _, name in ipairs(fingerprints_of(index)) do
    local key = index .. ':' .. name
    if oldest then redis.call('XTRIM', key, 'MINID', oldest[1]) end
    local left = oldest and redis.call('XLEN', key) or 0
    if left == 0 then
      redis.call('UNLINK', key)
      redis.call('HDEL', index .. FINGERPRINTS, name)
    end
    entries = entries + left
  end
  redis.call('HSET', index, 'entries', entries)
end

local function index_last(dlq, index, before, entry_id, letter)
  local known = redis.call('HMGET', index, 'to', 'entries')
  local to, entries = known[1] or '0-0', tonumber(known[2] or 0)
  if to == before then
    redis.call('XADD', index .. ':' .. fingerprint_for(index, letter), entry_id, 'l', '')
    entries = entries + 1
    redis.call('HSET', index, 'to', entry_id, 'entries', entries)
  else
    if is_before(before, to) then drop_index(index) end -- the stream was deleted and created again
    catch_up(dlq, index, 50, 1000000)
  end
  if entries > 2 * redis.call('XLEN', dlq) + 1000 then sweep(dlq, index) end
end

-- Append a letter, the names and values in `letter`, and index it. `id` is '*', or an id after `before`, the last id of
-- the stream. A `maxlen` of '0' trims nothing. Letters that are trimmed for it are counted: nobody has replayed or
-- discarded them.
local function write_letter(dlq, index, maxlen, id, before, letter)
  local command = {'XADD', dlq}
  local length = 0
  if maxlen ~= '0' then
    length = redis.call('XLEN', dlq)
    command[#command + 1] = 'MAXLEN'; command[#command + 1] = '~'; command[#command + 1] = maxlen
  end
  command[#command + 1] = id
  for i = 1, #letter do command[#command + 1] = letter[i] end
  local entry_id = redis.call(unpack(command))
  with_index(index, function()
    local cut = maxlen ~= '0' and length + 1 - redis.call('XLEN', dlq) or 0
    if cut > 0 then
      redis.call('HINCRBY', index, 'cut', cut)
      redis.call('HSET', index, 'cut_at', string.match(entry_id, '^%d+'))
    end
    index_last(dlq, index, before, entry_id, letter)
  end)
  return entry_id
end

-- Link a replay that failed again to its letter, if that is still archived.
local function link_replay(index, letter_id, letter)
  local replay_of
  for i = 1, #letter, 2 do
    if letter[i] == 'replay_of' and not replay_of then replay_of = letter[i + 1] end
  end
  if not replay_of or replay_of == '' then return end
  local prefix = string.sub(index, 1, -6) -- without "index"
  if not redis.call('ZSCORE', prefix .. 'archived', replay_of) then return end
  local failed_again = prefix .. 'failed-again'
  local others = redis.call('HGET', failed_again, replay_of)
  if others and #others > 1000 then return end
  redis.call('HSET', failed_again, replay_of, others and others .. ' ' .. letter_id or letter_id)
  redis.call('PEXPIRE', failed_again, math.max(1, redis.call('PTTL', prefix .. 'archived')))
end

-- Remove letters from the index that were removed from their stream: ids by the names of their fingerprints.
local function unindex_letters(index, by_fingerprint)
  with_index(index, function()
    local removed = 0
    local function remove(name, ids)
      local key = index .. ':' .. name
      local gone = redis.call('XDEL', key, unpack(ids))
      if gone > 0 and redis.call('XLEN', key) == 0 then
        redis.call('UNLINK', key)
        redis.call('HDEL', index .. FINGERPRINTS, name)
      end
      removed = removed + gone
      return gone
    end
    for name, ids in pairs(by_fingerprint) do
      if remove(name, ids) < #ids then remove(OTHERS, ids) end
    end
    if removed > 0 then redis.call('HINCRBY', index, 'entries', -removed) end
  end)
end
