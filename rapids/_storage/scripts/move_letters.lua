-- Move many dead letters for an operation, in order: into the archive, for a replay with their events appended. The
-- operation's counts and place are written in the same step, so that they are exactly what was moved.
--
-- KEYS  dead-letter stream, its index, archive, archived letters by place, restored letters, letters that failed again,
--       the operation
-- ARGV  the operation's owner, retention in ms, most archived letters to keep, after how many bytes of letters to stop,
--       the only hash tag that streams to replay into may have ('' for any), maximum length of event streams (0 for
--       none), scope ('' to discard), number of values of the change, those names and values, then entry ids
-- Returns 'stopped' if the operation is not running, or is another process's; else {moved, skipped since they were gone,
-- the last entry id dealt with ('' for none), the one that must be moved by itself ('' for none), why}.
-- include: lib/letter_archive.lua
local dlq, index, archive, archived, restored, again = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local operation, owner, retention, most, enough = KEYS[7], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local tag, maxlen, scope, values = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])

if not goes_on(operation, owner) then return 'stopped' end

local EVENT = {'event_type', 'schema_version', 'data', 'id', 'timestamp', 'correlation_id', 'causation_id', 'metadata'}
local now = microseconds()
local place = archive_end(archive, now)
check_kinds(archived, restored, again)
local change = {at = milliseconds(now)}
for i = 9, 8 + values, 2 do change[ARGV[i]] = ARGV[i + 1] end

local function tag_of(stream) return string.match(stream, '^[^{]*{([^}]+)}') end

local function is_plain(name) return string.match(name, '^[\33-\126]+$') end

-- Where letters of a stream and a group are replayed into; or nothing and why this is not done here.
local function target_of(stream, group)
  if not is_plain(stream) or not is_plain(group) then return nil, 'irregular' end
  local stream_tag = tag_of(stream)
  if not stream_tag and string.find(stream, '[{}]') then return nil, 'irregular' end
  if tag ~= '' and (stream_tag or stream) ~= tag then return nil, 'another slot' end
  if scope == 'everyone' then return stream end
  return (stream_tag and stream or '{' .. stream .. '}') .. ':rapids:replay:' .. group
end

-- Tables for each letter are made once and filled anew: a server's allocator takes much of the time of a move.
local replay = {'XADD', ''}
if scope == 'everyone' and maxlen ~= '0' then replay[3], replay[4], replay[5] = 'MAXLEN', '~', maxlen end
replay[#replay + 1] = '*'
local before_event = #replay

local targets = {}

-- Fill the command that replays a letter, its fields by name in `has`. Returns how many parts it has; or nothing and why
-- this is not done here.
local function fill_replay(letter_id, has)
  local stream, group = has.original_stream, has.original_group
  if has.original_fields or not stream or not group then return nil, 'irregular' end
  local of_stream = targets[stream]
  if not of_stream then
    of_stream = {}
    targets[stream] = of_stream
  end
  local target = of_stream[group]
  if not target then
    local why
    target, why = target_of(stream, group)
    if not target then return nil, why end
    of_stream[group] = target
  end
  replay[2] = target
  local n = before_event
  for i = 1, #EVENT do
    local name = EVENT[i]
    local value = has[name]
    if not value then return nil, 'irregular' end
    replay[n + 1], replay[n + 2] = name, value
    n = n + 2
  end
  if has.traceparent then
    replay[n + 1], replay[n + 2] = 'traceparent', has.traceparent
    n = n + 2
  end
  if scope ~= 'everyone' then
    local count = string.match(has.replay_count or '', '^%d+$') or '0'
    if #count > 15 then return nil, 'irregular' end -- more than a number here holds exactly
    replay[n + 1], replay[n + 2] = 'replay_handler', scope == 'handler' and (has.handler or '') or ''
    replay[n + 3], replay[n + 4] = 'replay_of', letter_id
    replay[n + 5], replay[n + 6] = 'replay_count', string.format('%.0f', tonumber(count) + 1)
    replay[n + 7], replay[n + 8] = 'original_msg_id', has.original_msg_id or ''
    n = n + 8
  end
  return n
end

-- The change as JSON, but for the id that its letter was appended by: many differ in no more.
local beginnings = {}
local function beginning_of(target)
  local beginning = beginnings[target]
  if not beginning then
    change.stream = target ~= '' and target or nil
    beginning = string.sub(cjson.encode(change), 1, -2) .. ',"entry_id":"'
    beginnings[target] = beginning
  end
  return beginning
end

local done, skipped, last, blocked, why, bytes = 0, 0, '', '', '', 0
local moved, was_restored, by_fingerprint = {'XDEL', dlq}, {'ZREM', restored}, {}
local places = {'ZADD', archived}

-- Letters one behind the other are read some at a time, as long as they are the wanted ones, and small.
local ahead, window = {}, 1
local function read(i)
  if not ahead[ARGV[i]] then
    local rows = redis.call('XRANGE', dlq, ARGV[i], '+', 'COUNT', window)
    ahead = {}
    for _, row in ipairs(rows) do ahead[row[1]] = row[2] end
    local are_wanted = #rows == window and rows[#rows][1] == ARGV[i + #rows - 1]
    window = are_wanted and bytes <= done * 8192 and math.min(2 * window, 8) or 1
  end
  return ahead[ARGV[i]]
end

local has, archiving, parts = {}, {'XADD', archive}, 0

for i = 9 + values, #ARGV do
  if bytes >= enough then break end
  local entry_id = ARGV[i]
  local letter = read(i)
  if letter then
    if parts > 200 then has = {} end -- to empty it takes as long as it was ever large
    for name in pairs(has) do has[name] = nil end
    parts = #letter
    local size, own = 0, 3
    for at = 1, parts, 2 do
      local name, value = letter[at], letter[at + 1]
      if has[name] == nil then has[name] = value end
      if name ~= HISTORY and name ~= LETTER then
        archiving[own + 1], archiving[own + 2] = name, value
        own = own + 2
      end
      size = size + #name + #value
    end
    local letter_id, is_restored = entry_id, false
    if has.letter_id ~= entry_id then letter_id, is_restored = identity(restored, entry_id, letter) end
    local target, appended = '', ''
    if parts > MOST_VALUES then why = 'irregular' end
    if why == '' and scope ~= '' then
      local n, reason = fill_replay(letter_id, has)
      if n then
        target, appended = replay[2], redis.pcall(unpack(replay, 1, n))
        if type(appended) == 'table' then appended, why = '', appended.err end
      else
        why = reason
      end
    end
    if why ~= '' then
      blocked = entry_id
      break
    end
    local at = string.format('%.0f', place)
    local history
    if is_restored and has[HISTORY] then
      history = lengthened(has[HISTORY], beginning_of(target) .. appended .. '"}')
    else
      history = '[' .. beginning_of(target) .. appended .. '"}]'
    end
    archiving[3] = at .. '-0'
    store(archiving, own, letter_id, history)
    places[#places + 1] = at; places[#places + 1] = letter_id
    if #places > 2000 then
      redis.call(unpack(places))
      places = {'ZADD', archived}
    end
    place = place + 1
    moved[#moved + 1] = entry_id
    if is_restored then was_restored[#was_restored + 1] = letter_id end
    local name = fingerprint_in(has)
    by_fingerprint[name] = by_fingerprint[name] or {}
    table.insert(by_fingerprint[name], entry_id)
    bytes = bytes + size
    done = done + 1
  else
    skipped = skipped + 1
  end
  last = entry_id
end

if #places > 2 then redis.call(unpack(places)) end
if #moved > 2 then redis.call(unpack(moved)) end
if #was_restored > 2 then redis.call(unpack(was_restored)) end
unindex_letters(index, by_fingerprint)
bound_archive(archive, archived, again, now, retention, most)
redis.call('HINCRBY', operation, 'done', done)
redis.call('HINCRBY', operation, 'skipped', skipped)
if last ~= '' then redis.call('HSET', operation, 'cursor', last) end
return {done, skipped, last, blocked, why}
