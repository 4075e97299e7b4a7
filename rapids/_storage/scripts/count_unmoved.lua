-- Count a letter that an operation did not move, with the reason. Repeated calls count it only once.
--
-- KEYS  the operation, its errors
-- ARGV  options, as JSON:
--   token       the process's
--   after       the place that the operation must be at, '' for any
--   counted_as  `skipped` or `failed`
--   place       the letter's place in the stream or in the archive
--   error       why it failed, '' if it did not
--   max_errors  how many errors to keep
--   ttl         time to live in ms
-- Returns 1; 0 if the operation is no longer this process's, 2 if it is at another place.
local options = cjson.decode(ARGV[1])
local held = redis.call('HMGET', KEYS[1], 'owner', 'cursor')
if held[1] ~= options.token then return 0 end
if held[2] == options.place then return 1 end
local at = held[2] and held[2] ~= '' and held[2] or '0-0'
if options.after ~= '' and options.after ~= at then return 2 end
redis.call('HINCRBY', KEYS[1], options.counted_as, 1)
redis.call('HSET', KEYS[1], 'cursor', options.place)
if options.error ~= '' and redis.call('LLEN', KEYS[2]) < options.max_errors then
  redis.call('RPUSH', KEYS[2], options.error)
  redis.call('PEXPIRE', KEYS[2], options.ttl)
end
return 1
