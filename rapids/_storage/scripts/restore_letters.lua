-- Bring many discarded letters back for an operation, in the order in which they were archived. The operation's counts
-- and place are written in the same step, so that they are exactly what was restored.
--
-- KEYS  dead-letter stream, its index, archive, archived letters by place, restored letters, the operation
-- ARGV  the operation's owner, maximum length of the dead-letter stream (0 for none), after how many bytes of letters to
--       stop, number of values of the change, those names and values, then ids of entries of the archive
-- Returns 'stopped' if the operation is not running, or is another process's; else {restored, skipped since they were
-- gone or not discarded, the last entry id dealt with ('' for none), the one for which the dead-letter stream has no
-- room ('' for none), why}: to restore many is not to cut others away.
-- include: lib/letters.lua
-- include: lib/letter_restore.lua
local keys = {dlq = KEYS[1], index = KEYS[2], archive = KEYS[3], archived = KEYS[4], restored = KEYS[5]}
local operation, maxlen, enough, values = KEYS[6], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if not goes_on(operation, ARGV[1]) then return 'stopped' end

local now = microseconds()
local before, room = last_id_of(keys.dlq), maxlen ~= '0' and maxlen - redis.call('XLEN', keys.dlq)
check_kinds(keys.archived, keys.restored)
local change = {at = milliseconds(now)}
for i = 5, 4 + values, 2 do change[ARGV[i]] = ARGV[i + 1] end
local done, skipped, last, blocked, bytes = 0, 0, '', '', 0
for i = 5 + values, #ARGV do
  if bytes >= enough then break end
  local row = redis.call('XRANGE', keys.archive, ARGV[i], ARGV[i])[1]
  if row and room and done >= room then
    blocked = ARGV[i]
    break
  end
  -- Few have the same millisecond: a restored letter is looked for among those of its own.
  local entry_id = row and bring_back(keys, row, maxlen, change, before, math.floor(now / 1000) + math.floor(done / 20))
  if entry_id then
    before, done = entry_id, done + 1
    for _, value in ipairs(row[2]) do bytes = bytes + #value end
  else
    skipped = skipped + 1
  end
  last = ARGV[i]
end
if done > 0 then bound_restored(keys.dlq, keys.restored) end
redis.call('HINCRBY', operation, 'done', done)
redis.call('HINCRBY', operation, 'skipped', skipped)
if last ~= '' then redis.call('HSET', operation, 'cursor', last) end
return {done, skipped, last, blocked, blocked ~= '' and 'full' or ''}
