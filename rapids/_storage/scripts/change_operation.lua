-- Pause, resume or cancel an operation that has not ended. The process that runs it notices at its next step.
--
-- KEYS  the operation, the one of its kind that has not ended, the audit log
-- ARGV  options, as JSON: id, the new `state`, `ttl` (time to live in ms), `action` for the audit log, actor, reason
-- Returns the earlier state, or nothing if there is no such operation.
-- include: lib/audit.lua
-- include: lib/time.lua
local options = cjson.decode(ARGV[1])
local id, wanted, ttl = options.id, options.state, options.ttl
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return false end
if state == wanted or (state ~= 'running' and state ~= 'paused') then return state end

local now = server_time()
redis.call('HSET', KEYS[1], 'state', wanted, 'updated_ms', now)
redis.call('PEXPIRE', KEYS[1], ttl)
if wanted == 'cancelled' then
  redis.call('HSET', KEYS[1], 'ended_ms', now)
  if redis.call('GET', KEYS[2]) == id then redis.call('DEL', KEYS[2]) end
else
  redis.call('PEXPIRE', KEYS[2], ttl)
end
if wanted == 'running' then redis.call('HSET', KEYS[1], 'owner', '', 'lease_ms', 0) end
local entry = {'action', options.action, 'actor', options.actor, 'reason', options.reason, 'operation', id}
audit(KEYS[3], add_progress(entry, redis.call('HMGET', KEYS[1], 'kind', 'done', 'skipped', 'failed')))
return state
