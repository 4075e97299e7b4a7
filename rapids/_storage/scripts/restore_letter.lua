-- Bring a discarded letter back into its dead-letter stream.
--
-- KEYS  dead-letter stream, its index, archive, archived letters by place, restored letters, audit log
-- ARGV  letter id, maximum length of the dead-letter stream (0 for none), then the names and values of the change
-- Returns the new entry's id, or false if the letter is not in the archive, or was not discarded last.
-- include: lib/letters.lua
-- include: lib/letter_restore.lua
local keys = {dlq = KEYS[1], index = KEYS[2], archive = KEYS[3], archived = KEYS[4], restored = KEYS[5]}
local place = redis.call('ZSCORE', keys.archived, ARGV[1])
if not place then return false end
local at = string.format('%.0f-0', place)
local row = redis.call('XRANGE', keys.archive, at, at)[1]
if not row then return false end

local now = microseconds()
local change = {at = milliseconds(now)}
for i = 3, #ARGV, 2 do change[ARGV[i]] = ARGV[i + 1] end
local entry_id = bring_back(keys, row, ARGV[2], change, last_id_of(keys.dlq), math.floor(now / 1000))
if not entry_id then return false end
bound_restored(keys.dlq, keys.restored)
audit(KEYS[6], {
  'action', 'letter_restored', 'actor', change.actor, 'reason', change.reason, 'letter', ARGV[1],
})
return entry_id
