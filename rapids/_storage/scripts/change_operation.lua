-- Pause, resume or cancel an operation that has not ended. The process that runs it notices at its next step.
--
-- KEYS  the operation, the one of its kind that has not ended, the audit log, its replays without an outcome
-- ARGV  options, as JSON: id, the new `state`, `ttl` (time to live in ms), `action` for the audit log, actor, reason,
--       `ends_canary`: whether it runs without its canary from now on; `resumed`: what takes the place of why the
--       canary had stopped it because replays failed again: then a step begins
-- Returns the earlier state, or nothing if there is no such operation.
-- include: lib/audit.lua
-- include: lib/time.lua
local options = cjson.decode(ARGV[1])
local id, wanted, ttl = options.id, options.state, options.ttl
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return false end
if state ~= 'running' and state ~= 'paused' then return state end
local has_canary = (redis.call('HGET', KEYS[1], 'canary') or '') ~= ''
local ends_canary = has_canary and options.ends_canary
if state == wanted and not ends_canary then return state end

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
if wanted == 'running' and has_canary then
  local stopped = redis.call('HGET', KEYS[1], 'canary_stopped') or ''
  if stopped == 'overdue' then stopped = '' elseif stopped ~= '' then stopped = options.resumed end
  redis.call('HSET', KEYS[1], 'canary_since', now, 'canary_stopped', stopped, 'canary_why', '')
end
if ends_canary then
  redis.call('HSET', KEYS[1], 'canary', '', 'upto', redis.call('HGET', KEYS[1], 'canary_upto'), 'canary_upto', '')
end
if ends_canary or wanted == 'cancelled' then redis.call('DEL', KEYS[4]) end
local entry = {'action', options.action, 'actor', options.actor, 'reason', options.reason, 'operation', id}
if ends_canary then entry[#entry + 1] = 'canary'; entry[#entry + 1] = 'ended' end
audit(KEYS[3], add_progress(entry, redis.call('HMGET', KEYS[1], 'kind', 'done', 'skipped', 'failed')))
return state
