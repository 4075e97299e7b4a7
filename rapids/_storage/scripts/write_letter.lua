-- Write a dead letter whose entry is in another slot of a Cluster, and only once.
--
-- KEYS  dead-letter stream, the key that tells that this letter is written, the index of the stream, then the keys that
--       would tell so if its handler had the names it had before
-- ARGV  for how many ms that key stays, maximum length of the stream (0 for none), then names and values in turn
-- Returns the letter's id, also where it was written before.
-- include: lib/letters.lua
local written = redis.call('GET', KEYS[2])
for i = 4, #KEYS do written = written or redis.call('GET', KEYS[i]) end
if not written then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  written = add_letter(KEYS[1], KEYS[3], now, ARGV[2], ARGV, 3, #ARGV)
end
redis.call('SET', KEYS[2], written, 'PX', ARGV[1])
return written
