-- Append the event of a dead letter whose stream is in another slot of a Cluster, and only once.
--
-- KEYS  stream, the key that tells that it was appended
-- ARGV  for how many ms that key stays, maximum length of the stream (0 for none), with what data other than the
--       letter's (JSON), then names and values in turn
-- Returns the entry's id and with what data, also where it was appended before.
local appended, edit = string.match(redis.call('GET', KEYS[2]) or '', '^(%S+) (.*)$')
if not appended then
  local command = {'XADD', KEYS[1]}
  if ARGV[2] ~= '0' then
    command[#command + 1] = 'MAXLEN'; command[#command + 1] = '~'; command[#command + 1] = ARGV[2]
  end
  command[#command + 1] = '*'
  for i = 4, #ARGV do command[#command + 1] = ARGV[i] end
  appended, edit = redis.call(unpack(command)), ARGV[3]
end
redis.call('SET', KEYS[2], appended .. ' ' .. edit, 'PX', ARGV[1])
return {appended, edit}
