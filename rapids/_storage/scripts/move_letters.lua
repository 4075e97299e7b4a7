-- Move dead letters in order, one or many, to the archive. For a replay, append their events. For an operation, its
-- counts and place are written in the same step, so that they are always exactly what was moved.
--
-- KEYS  dead-letter stream, its index, archive, archived letters by place, restored letters, letters that failed again,
--       audit log, the operation (any key for none), the stream that a given event is appended to (any key for none),
--       the operation's replays without an outcome (any key for none)
-- ARGV  options, number of values of a given event (0 for none), its names and values, then entry ids
-- Options, as JSON:
--   owner           the operation's owner, '' for no operation
--   after           the place that the operation must be at, '' for any
--   alone           whether this is a single letter, which is moved or is an error
--   retention       in ms
--   archive_maxlen  how many archived letters to keep
--   max_bytes       after how many bytes of letters to stop
--   tag             the only hash tag that streams for replays may have, '' for any
--   maxlen          maximum length of the streams for replays, as text: a number of Lua has 53 bits; 0 for none
--   scope           '' to discard, or if the event is given
--   change          what the letters' histories record
-- Returns 'stopped' if the operation does not run, or is another process's; 'elsewhere' if it is at another place; else {moved, skipped since they were gone,
-- the last entry id processed ('' for none), the letter that must be moved on its own ('' for none), why, the id of the
-- entry appended last ('' for none)}.
-- include: lib/letter_archive.lua
-- include: lib/names.lua
local dlq, index, archive, archived, restored, failed_again = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local operation, options, given = KEYS[8], cjson.decode(ARGV[1]), tonumber(ARGV[2])
local owner, alone, tag, scope, change = options.owner, options.alone, options.tag, options.scope, options.change
local first = 3 + given

local refused = owner ~= '' and refused_step(operation, owner, options.after)
if refused then return refused end
local has_canary = owner ~= '' and (redis.call('HGET', operation, 'canary') or '') ~= ''

local EVENT = {'event_type', 'schema_version', 'data', 'id', 'timestamp', 'correlation_id', 'causation_id', 'metadata'}
local TRACE = {'traceparent', 'tracestate'} -- only entries emitted under a span have them
local now = server_us()
local place = archive_end(archive, now)
check_kinds(archived, restored, failed_again)
change.at = milliseconds(now)

local function tag_of(stream) return string.match(stream, '^[^{]*{([^}]+)}') end

local function is_plain(name) return string.match(name, '^[\33-\126]+$') end

-- The stream for replays of letters of a stream and a group; or nothing and the reason why it is not done here.
local function target_of(stream, group)
  if not is_plain(stream) or not is_plain(group) then return nil, 'irregular' end
  if stream == dlq or string.find(stream, BESIDE, 1, true) then return nil, 'irregular' end
  local stream_tag = tag_of(stream)
  if not stream_tag and string.find(stream, '[{}]') then return nil, 'irregular' end
  if tag ~= '' and (stream_tag or stream) ~= tag then return nil, 'another slot' end
  if scope == 'everyone' then return stream end
  return (stream_tag and stream or '{' .. stream .. '}') .. REPLAY_STREAM .. group
end

-- Tables for letters are created once and filled again: the server's allocator takes much of the time of a move.
local replay = {'XADD', ''}
if options.maxlen ~= '0' then replay[3], replay[4], replay[5] = 'MAXLEN', '~', options.maxlen end
replay[#replay + 1] = '*'
local before_event = #replay

if given > 0 then
  replay[2] = KEYS[9]
  for i = 3, first - 1 do replay[#replay + 1] = ARGV[i] end
end

local targets = {}

-- Fill the command that replays a letter, whose fields by name are in `has`. Returns how many parts it has; or nothing
-- and the reason why it is not done here.
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
  for i = 1, #TRACE do
    local value = has[TRACE[i]]
    if value then
      replay[n + 1], replay[n + 2] = TRACE[i], value
      n = n + 2
    end
  end
  if scope ~= 'everyone' then
    local count = string.match(has.replay_count or '', '^%d+$') or '0'
    if #count > 15 then return nil, 'irregular' end -- more digits than a Lua number holds exactly
    replay[n + 1], replay[n + 2] = 'replay_handler', scope == 'handler' and (has.handler or '') or ''
    replay[n + 3], replay[n + 4] = 'replay_of', letter_id
    replay[n + 5], replay[n + 6] = 'replay_count', string.format('%.0f', tonumber(count) + 1)
    replay[n + 7], replay[n + 8] = 'original_msg_id', has.original_msg_id or ''
    n = n + 8
  end
  return n
end

-- The change as JSON, without the id of the appended entry, which is often the only difference between letters.
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

local done, skipped, last, blocked, why, bytes, appended = 0, 0, '', '', '', 0, ''
local moved, was_restored, by_fingerprint = {'XDEL', dlq}, {'ZREM', restored}, {}
local places, replays = {'ZADD', archived}, {'HSET', KEYS[10]}

-- Consecutive letters are read several at a time, as long as they are the wanted letters, and small.
local ahead, window = {}, 1
local function read(i)
  if not ahead[ARGV[i]] then
    window = math.min(window, #ARGV - i + 1)
    local rows = redis.call('XRANGE', dlq, ARGV[i], window == 1 and ARGV[i] or '+', 'COUNT', window)
    ahead = {}
    for _, row in ipairs(rows) do ahead[row[1]] = row[2] end
    local are_wanted = #rows == window and rows[#rows][1] == ARGV[i + #rows - 1]
    window = are_wanted and bytes <= done * 8192 and math.min(2 * window, 8) or 1
  end
  return ahead[ARGV[i]]
end

local has, archiving, parts, moved_id = {}, {'XADD', archive}, 0, ''

for i = first, #ARGV do
  if bytes >= options.max_bytes then break end
  local entry_id = ARGV[i]
  local letter = read(i)
  if letter then
    if parts > 200 then has = {} end -- emptying it takes as long as its largest size ever
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
    local target = ''
    appended = ''
    if parts > MAX_VALUES then why = 'irregular' end
    if why == '' and (scope ~= '' or given > 0) then
      local n, reason = before_event + given, nil
      if given == 0 then n, reason = fill_replay(letter_id, has) end
      if n then
        target, appended = replay[2], redis.pcall(unpack(replay, 1, n))
        if type(appended) == 'table' then appended, why = '', appended.err end
      else
        why = reason
      end
    end
    if why ~= '' then
      if alone then return redis.error_reply(why == 'irregular' and 'ERR the letter has too many fields to be moved' or why) end
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
    if has_canary then
      replays[#replays + 1] = letter_id; replays[#replays + 1] = appended .. ' ' .. target
      if #replays > 2000 then
        redis.call(unpack(replays))
        replays = {'HSET', KEYS[10]}
      end
    end
    moved[#moved + 1] = entry_id
    if is_restored then was_restored[#was_restored + 1] = letter_id end
    local name = fingerprint_in(has)
    by_fingerprint[name] = by_fingerprint[name] or {}
    table.insert(by_fingerprint[name], entry_id)
    bytes = bytes + size
    done, moved_id = done + 1, letter_id
  else
    skipped = skipped + 1
  end
  last = entry_id
end

if #places > 2 then redis.call(unpack(places)) end
if #moved > 2 then redis.call(unpack(moved)) end
if #was_restored > 2 then redis.call(unpack(was_restored)) end
unindex_letters(index, by_fingerprint)
if has_canary and done > 0 then
  if #replays > 2 then redis.call(unpack(replays)) end
  redis.call('PEXPIRE', KEYS[10], math.max(1, redis.call('PTTL', operation)))
  redis.call('HSET', operation, 'canary_since', milliseconds(now))
end
bound_archive(archive, archived, failed_again, now, options.retention, options.archive_maxlen)
if owner ~= '' then
  if done > 0 or not alone then
    redis.call('HINCRBY', operation, 'done', done)
    redis.call('HINCRBY', operation, 'skipped', skipped)
    if last ~= '' then redis.call('HSET', operation, 'cursor', last) end
  end
elseif done > 0 then
  local entry = {
    'action', 'letter_' .. change.action, 'actor', change.actor, 'reason', change.reason, 'letter', moved_id,
    'scope', change.scope or '',
  }
  if change.data then -- the letter's history has the changed data
    entry[#entry + 1] = 'edited'; entry[#entry + 1] = 'true'
  end
  audit(KEYS[7], entry)
end
return {done, skipped, last, blocked, why, appended}
