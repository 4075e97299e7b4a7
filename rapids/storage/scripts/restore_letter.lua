-- Bring a discarded letter back into its dead-letter stream: same letter, same id, in a new entry.
--
-- KEYS  dead-letter stream, the letter's archive, index of archived letters, index of restored letters
-- ARGV  letter id, maximum length of the dead-letter stream (0 for none), then the names and values of the change
-- Returns the new entry's id, or false if the letter is not in the archive, or was not discarded last.
local dlq, archive, archived, restored = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local letter = redis.call('XRANGE', archive, '-', '+', 'COUNT', 1)[1]
if not letter then return false end
local last = redis.call('XREVRANGE', archive, '+', '-', 'COUNT', 1)[1]
local discarded = false
for i = 1, #last[2], 2 do
  if last[2][i] == 'action' then discarded = last[2][i + 1] == 'discarded' end
end
if not discarded then return false end

local command = {'XADD', dlq}
if ARGV[2] ~= '0' then
  command[#command + 1] = 'MAXLEN'; command[#command + 1] = '~'; command[#command + 1] = ARGV[2]
end
command[#command + 1] = '*'
for i = 1, #letter[2], 2 do
  if letter[2][i] ~= 'letter_id' then
    command[#command + 1] = letter[2][i]; command[#command + 1] = letter[2][i + 1]
  end
end
-- Letters of other versions have no id of their own but their first entry's; forged ones claim another's.
command[#command + 1] = 'letter_id'; command[#command + 1] = ARGV[1]
local entry_id = redis.call(unpack(command))

local change = {}
for i = 3, #ARGV do change[#change + 1] = ARGV[i] end
change[#change + 1] = 'entry_id'; change[#change + 1] = entry_id
redis.call('XADD', archive, '*', unpack(change))
redis.call('ZREM', archived, ARGV[1])

-- The index holds no more than the stream does: what was trimmed from one is dropped from the other.
local oldest = redis.call('XRANGE', dlq, '-', '+', 'COUNT', 1)[1]
redis.call('ZREMRANGEBYSCORE', restored, '-inf', '(' .. string.match(oldest[1], '^%d+'))
redis.call('ZADD', restored, string.match(entry_id, '^%d+'), ARGV[1])
return entry_id
