-- Change what an operation knows of its canary: why it waits, or the step that begins.
--
-- KEYS  the operation, its replays without an outcome
-- ARGV  options, as JSON:
--   token   the process's
--   fields  the fields to set
--   begins  whether a step begins: the replays of the step before it are no longer waited for
-- Returns 1; 0 if the operation no longer runs, or is another process's.
local options = cjson.decode(ARGV[1])
local held = redis.call('HMGET', KEYS[1], 'state', 'owner')
if held[1] ~= 'running' or held[2] ~= options.token then return 0 end
for name, value in pairs(options.fields) do redis.call('HSET', KEYS[1], name, value) end
if options.begins then redis.call('DEL', KEYS[2]) end
return 1
