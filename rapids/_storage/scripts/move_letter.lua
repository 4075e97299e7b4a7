-- Move a dead letter out of its stream into the archive, and, for a replay, append its event in the same step.
--
-- KEYS  dead-letter stream, its index, archive, archived letters by place, restored letters, letters that failed again,
--       audit log, the stream to replay into (any key where nothing is appended), the operation that it is moved for
--       (any key for none)
-- ARGV  letter id, its entry id now, retention in ms, most archived letters to keep, the operation's owner ('' for no
--       operation), maximum length of the stream replayed into (0 for none), number of values to append, then those
--       names and values, then the names and values of the change (action, actor, ...)
-- Returns the id of the appended entry, or '' where none was asked for; 'stopped' if the operation is not running, or is
-- another process's; false if the letter is not there any more.
-- include: lib/letter_archive.lua
local dlq, index, archive, archived, restored = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local letter_id, entry_id, retention, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local owner, maxlen, values = ARGV[5], ARGV[6], tonumber(ARGV[7])

if owner ~= '' and not goes_on(KEYS[9], owner) then return 'stopped' end
local found = redis.call('XRANGE', dlq, entry_id, entry_id)[1]
if not found then return false end
if #found[2] > MOST_VALUES then return redis.error_reply('ERR the letter has too many fields to be moved') end

local now = microseconds()
local place = archive_end(archive, now)
check_kinds(archived, restored, KEYS[6])
local appended = ''
if values > 0 then
  local command = {'XADD', KEYS[8]}
  if maxlen ~= '0' then
    command[#command + 1] = 'MAXLEN'; command[#command + 1] = '~'; command[#command + 1] = maxlen
  end
  command[#command + 1] = '*'
  for i = 8, 7 + values do command[#command + 1] = ARGV[i] end
  appended = redis.call(unpack(command))
end

local change = {at = milliseconds(now), entry_id = appended}
for i = 8 + values, #ARGV, 2 do change[ARGV[i]] = ARGV[i + 1] end
local _, was_restored = identity(restored, entry_id, found[2])
local history = was_restored and value_of(found[2], HISTORY) or nil
put_away(archive, archived, place, letter_id, found[2], changed(history, change))
redis.call('XDEL', dlq, entry_id)
redis.call('ZREM', restored, letter_id)
unindex_letter(index, entry_id, found[2])
bound_archive(archive, archived, KEYS[6], now, retention, most)

if owner ~= '' then
  redis.call('HINCRBY', KEYS[9], 'done', 1)
  redis.call('HSET', KEYS[9], 'cursor', entry_id)
else
  local entry = {
    'action', 'letter_' .. change.action, 'actor', change.actor, 'reason', change.reason, 'letter', letter_id,
    'scope', change.scope or '',
  }
  if change.data then -- which, the letter's history tells
    entry[#entry + 1] = 'edited'; entry[#entry + 1] = 'true'
  end
  audit(KEYS[7], entry)
end
return appended
