-- Move many dead letters for an operation, in order: into the archive, for a replay with their events appended. The
-- operation's counts and place are written in the same step, so that they are exactly what was moved.
--
-- KEYS  dead-letter stream, its index, archive, archived letters by place, restored letters, letters that failed again,
--       the operation
-- ARGV  the operation's owner, retention in ms, most archived letters to keep, after how many bytes of letters to stop,
--       the only hash tag that streams to replay into may have ('' for any), what mover's keys begin with, maximum length
--       of event streams (0 for none), scope ('' to discard), number of values of the change, those names and values,
--       then entry ids
-- Returns 'stopped' if the operation is not running, or is another process's; else {moved, skipped since they were gone,
-- the last entry id dealt with ('' for none), the one that must be moved by itself ('' for none), why}.
-- with moving
local dlq, index, archive, archived, restored, again = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local operation, owner, retention, most, enough = KEYS[7], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local tag, movers, maxlen, scope, values = ARGV[5], ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])

if not goes_on(operation, owner) then return 'stopped' end

local EVENT = {'event_type', 'schema_version', 'data', 'id', 'timestamp', 'correlation_id', 'causation_id', 'metadata'}
local now = microseconds()
local place = archive_end(archive, now)
redis.call('ZCARD', archived) -- what holds something else is to fail here, before anything is moved
local change = {at = milliseconds(now)}
for i = 10, 9 + values, 2 do change[ARGV[i]] = ARGV[i + 1] end

local function tag_of(stream) return string.match(stream, '^[^{]*{([^}]+)}') end

local function is_plain(name) return name and string.match(name, '^[\33-\126]+$') end

-- The command that replays a letter, or nothing and why this is not done here.
local function replaying(letter_id, letter)
  local has = {}
  for i = 1, #letter, 2 do
    if has[letter[i]] == nil then has[letter[i]] = letter[i + 1] end
  end
  local stream, group = has.original_stream, has.original_group
  if has.original_fields or not is_plain(stream) or not is_plain(group) then return nil, 'irregular' end
  local stream_tag = tag_of(stream)
  if not stream_tag and string.find(stream, '[{}]') then return nil, 'irregular' end
  if tag ~= '' and (stream_tag or stream) ~= tag then return nil, 'elsewhere' end
  local target = stream
  if scope ~= 'everyone' then
    target = (stream_tag and stream or '{' .. stream .. '}') .. ':rapids:replay:' .. group
  end
  local command = {'XADD', target}
  if scope == 'everyone' and maxlen ~= '0' then
    command[3] = 'MAXLEN'; command[4] = '~'; command[5] = maxlen
  end
  command[#command + 1] = '*'
  for _, name in ipairs(EVENT) do
    if not has[name] then return nil, 'irregular' end
    command[#command + 1] = name; command[#command + 1] = has[name]
  end
  if has.traceparent then command[#command + 1] = 'traceparent'; command[#command + 1] = has.traceparent end
  if scope ~= 'everyone' then
    local count = string.match(has.replay_count or '', '^%d+$')
    count = count and #count < 16 and tonumber(count) or 0
    local more = {
      'replay_handler', scope == 'handler' and (has.handler or '') or '', 'replay_of', letter_id,
      'replay_count', string.format('%.0f', count + 1), 'original_msg_id', has.original_msg_id or '',
    }
    for i = 1, #more do command[#command + 1] = more[i] end
  end
  change.stream = target
  return command
end

local done, skipped, last, blocked, why, bytes = 0, 0, '', '', '', 0
local moved, was_restored, by_fingerprint = {'XDEL', dlq}, {'ZREM', restored}, {}

for i = 10 + values, #ARGV do
  if bytes >= enough then break end
  local entry_id = ARGV[i]
  local found = redis.call('XRANGE', dlq, entry_id, entry_id)[1]
  if found then
    local letter = found[2]
    local letter_id, is_restored = identity(restored, entry_id, letter)
    local appended = ''
    if #letter > MOST_VALUES then why = 'irregular' end
    if tag ~= '' and redis.call('EXISTS', movers .. letter_id) == 1 then why = 'busy' end
    if why == '' and scope ~= '' then
      local command
      command, why = replaying(letter_id, letter)
      why = why or ''
      if command then
        appended = redis.pcall(unpack(command))
        if type(appended) == 'table' then appended, why = '', appended.err end
      end
    end
    if why ~= '' then
      blocked = entry_id
      break
    end
    change.entry_id = appended
    local history = is_restored and value_of(letter, HISTORY) or nil
    put_away(archive, archived, place, letter_id, letter, changed(history, change))
    place = place + 1
    moved[#moved + 1] = entry_id
    if is_restored then was_restored[#was_restored + 1] = letter_id end
    local name = fingerprint_of(letter)
    by_fingerprint[name] = by_fingerprint[name] or {}
    table.insert(by_fingerprint[name], entry_id)
    for _, part in ipairs(letter) do bytes = bytes + #part end
    done = done + 1
  else
    skipped = skipped + 1
  end
  last = entry_id
end

if #moved > 2 then redis.call(unpack(moved)) end
if #was_restored > 2 then redis.call(unpack(was_restored)) end
unindex_letters(index, by_fingerprint)
bound_archive(archive, archived, again, now, retention, most)
redis.call('HINCRBY', operation, 'done', done)
redis.call('HINCRBY', operation, 'skipped', skipped)
if last ~= '' then redis.call('HSET', operation, 'cursor', last) end
return {done, skipped, last, blocked, why}
