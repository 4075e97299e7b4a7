-- Release an operation, so that another process may take it, or end it, or pause it for its canary.
--
-- KEYS  the operation, its errors, the one of its kind that has not ended, the audit log, its replays without an outcome
-- ARGV  options, as JSON:
--   id
--   token   the process's
--   state   the state it ends in, or `paused`; '' to release it
--   action  for the audit log
--   error   why it failed, '' if it did not
--   fields  what else to set: why its canary stopped
--   reason  for the audit log
--   ttl     time to live in ms
-- Returns 1; 0 if it is no longer this process's, or if it was to be ended and does not run.
-- include: lib/audit.lua
-- include: lib/time.lua
local options = cjson.decode(ARGV[1])
local id, ended, ttl = options.id, options.state, options.ttl
local held = redis.call('HMGET', KEYS[1], 'state', 'owner', 'actor', 'kind', 'done', 'skipped', 'failed')
if held[2] ~= options.token then return 0 end
if held[1] == ended then return 1 end -- the call was repeated, since the answer was lost
if ended == '' then
  redis.call('HSET', KEYS[1], 'owner', '', 'lease_ms', 0)
  return 1
end
if held[1] ~= 'running' then return 0 end
local now = server_time()
redis.call('HSET', KEYS[1], 'state', ended, 'updated_ms', now, 'lease_ms', 0)
for name, value in pairs(options.fields) do redis.call('HSET', KEYS[1], name, value) end
redis.call('PEXPIRE', KEYS[1], ttl)
if options.error ~= '' then
  redis.call('RPUSH', KEYS[2], options.error)
  redis.call('PEXPIRE', KEYS[2], ttl)
end
if ended ~= 'paused' then
  redis.call('HSET', KEYS[1], 'ended_ms', now)
  redis.call('DEL', KEYS[5])
  if redis.call('GET', KEYS[3]) == id then redis.call('DEL', KEYS[3]) end
end
local entry = {'action', options.action, 'actor', held[3] or '', 'reason', options.reason, 'operation', id}
audit(KEYS[4], add_progress(entry, {held[4], held[5], held[6], held[7]}))
return 1
