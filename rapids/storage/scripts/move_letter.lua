-- Move a dead letter out of its stream into its archive, and, for a replay, append its event in the same step.
--
-- KEYS  dead-letter stream, the letter's archive, index of archived letters, index of restored letters,
--       the stream to replay into (any key where nothing is appended), the key by which one process moves it at a time
-- ARGV  letter id, its entry id now, retention in ms, most archived letters to keep, prefix of archive keys,
--       the token that key holds if this process has it, the id of the entry appended in another slot ('' for none),
--       maximum length of the stream replayed into (0 for none), number of values to append,
--       then those names and values, then the names and values of the change (action, actor, ...)
-- Returns the id of the appended entry, or '' where none was asked for, or 'busy' if another process is moving it, or
-- false if the letter is not there any more.
local dlq, archive, archived, restored, target = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local letter_id, entry_id, retention, most, prefix = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local token, appended, maxlen, values = ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])

local found = redis.call('XRANGE', dlq, entry_id, entry_id)[1]
if not found then return false end
local mover = redis.call('GET', KEYS[6])
if mover and mover ~= token then return 'busy' end

if values > 0 then
  local command = {'XADD', target}
  if maxlen ~= '0' then
    command[#command + 1] = 'MAXLEN'; command[#command + 1] = '~'; command[#command + 1] = maxlen
  end
  command[#command + 1] = '*'
  for i = 10, 9 + values do command[#command + 1] = ARGV[i] end
  appended = redis.call(unpack(command))
end

local change = {}
for i = 10 + values, #ARGV do change[#change + 1] = ARGV[i] end
change[#change + 1] = 'entry_id'; change[#change + 1] = appended
if redis.call('EXISTS', archive) == 0 then
  redis.call('XADD', archive, '0-1', unpack(found[2]))
end
redis.call('XADD', archive, '*', unpack(change))
redis.call('PEXPIRE', archive, retention)

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', archived, string.format('%.0f', now), letter_id)
redis.call('ZREMRANGEBYSCORE', archived, '-inf', string.format('%.0f', now - retention))
local over = redis.call('ZCARD', archived) - most
if over > 0 then
  for _, id in ipairs(redis.call('ZRANGE', archived, 0, math.min(over, 100) - 1)) do
    redis.call('DEL', prefix .. id)
    redis.call('ZREM', archived, id)
  end
end
redis.call('PEXPIRE', archived, retention)

redis.call('XDEL', dlq, entry_id)
redis.call('ZREM', restored, letter_id)
redis.call('DEL', KEYS[6])
return appended
