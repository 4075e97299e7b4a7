-- Restore discarded letters, one or many, in the order in which they were archived. For an operation, its counts and
-- place are written in the same step, so that they are always exactly what was restored.
--
-- KEYS  dead-letter stream, its index, archive, archived letters by place, restored letters, audit log, the operation (any
--       key for none)
-- ARGV  options, then ids of entries of the archive or, without an operation, the id of one letter
-- Options, as JSON:
--   owner      the operation's owner, '' for no operation
--   after      the place that the operation must be at, '' for any
--   maxlen     maximum length of the dead-letter stream, as text; 0 for none
--   max_bytes  after how many bytes of letters to stop
--   change     what the letters' histories record
-- Returns 'stopped' if the operation does not run, or is another process's; 'elsewhere' if it is at another place; else
-- {restored, skipped since they were gone or not discarded, the last one processed ('' for none), the one for which the dead-letter stream has no room (''
-- for none), why}. An operation does not trim other letters to restore many.
-- include: lib/letters.lua
-- include: lib/letter_restore.lua
local keys = {dlq = KEYS[1], index = KEYS[2], archive = KEYS[3], archived = KEYS[4], restored = KEYS[5]}
local operation, options = KEYS[7], cjson.decode(ARGV[1])
local owner, maxlen, change = options.owner, options.maxlen, options.change
local refused = owner ~= '' and refused_step(operation, owner, options.after)
if refused then return refused end

local now = server_us()
local before = last_id_of(keys.dlq)
local room = owner ~= '' and maxlen ~= '0' and maxlen - redis.call('XLEN', keys.dlq)
check_kinds(keys.archived, keys.restored)
change.at = milliseconds(now)
local done, skipped, last, blocked, bytes = 0, 0, '', '', 0
local function place_of(one)
  if owner ~= '' then return one end
  local score = redis.call('ZSCORE', keys.archived, one)
  return score and string.format('%.0f-0', score)
end

for i = 2, #ARGV do
  if bytes >= options.max_bytes then break end
  local place = place_of(ARGV[i])
  if room and done >= room and is_in(keys.archive, place) then
    blocked = ARGV[i]
    break
  end
  local row = place and redis.call('XRANGE', keys.archive, place, place)[1]
  -- Few have the same millisecond: a restored letter is searched among those of its own millisecond.
  local entry_id = row and restore_letter(keys, row, maxlen, change, before, math.floor(now / 1000) + math.floor(done / 20))
  if entry_id then
    before, done = entry_id, done + 1
    for _, value in ipairs(row[2]) do bytes = bytes + #value end
  else
    skipped = skipped + 1
  end
  last = ARGV[i]
end
if done > 0 then bound_restored(keys.dlq, keys.restored) end
if owner ~= '' then
  redis.call('HINCRBY', operation, 'done', done)
  redis.call('HINCRBY', operation, 'skipped', skipped)
  if last ~= '' then redis.call('HSET', operation, 'cursor', last) end
elseif done > 0 then
  audit(KEYS[6], {
    'action', 'letter_restored', 'actor', change.actor, 'reason', change.reason, 'letter', last,
  })
end
return {done, skipped, last, blocked, blocked ~= '' and 'full' or ''}
