-- Count a letter that an operation did not move, with the reason. Repeated calls count it only once.
--
-- KEYS  the operation, its errors
-- ARGV  the process's token, what to count it as (`skipped` or `failed`), the letter's place in the selection, why (''
--       for no reason), how many errors to keep, time to live in ms
-- Returns 1; 0 if the operation is no longer this process's.
local held = redis.call('HMGET', KEYS[1], 'owner', 'cursor')
if held[1] ~= ARGV[1] then return 0 end
if held[2] == ARGV[3] then return 1 end
redis.call('HINCRBY', KEYS[1], ARGV[2], 1)
redis.call('HSET', KEYS[1], 'cursor', ARGV[3])
if ARGV[4] ~= '' and redis.call('LLEN', KEYS[2]) < tonumber(ARGV[5]) then
  redis.call('RPUSH', KEYS[2], ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
end
return 1
