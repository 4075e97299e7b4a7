-- Start an operation, unless another of its kind on this dead-letter stream has not ended.
--
-- KEYS  the operation, the one of its kind that has not ended, the operations by creation, the audit log
-- ARGV  options, as JSON:
--   id
--   fields         what the operation's hash holds, `actor` and `reason` included
--   ttl            time to live in ms
--   max_kept       how many operations to keep
--   prefix         of the keys of operations
-- Returns the id of the other operation that has not ended, or nothing.
-- include: lib/audit.lua
-- include: lib/time.lua
-- include: lib/names.lua
local options = cjson.decode(ARGV[1])
local id, fields, ttl, prefix = options.id, options.fields, options.ttl, options.prefix
local other = redis.call('GET', KEYS[2])
if other and redis.call('EXISTS', prefix .. other) == 1 then return other end

local now = server_time()
redis.call('HSET', KEYS[1], 'state', 'running', 'created_ms', now, 'updated_ms', now, 'done', 0, 'skipped', 0, 'failed', 0)
for name, value in pairs(fields) do redis.call('HSET', KEYS[1], name, value) end
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('SET', KEYS[2], id, 'PX', ttl)

redis.call('ZADD', KEYS[3], string.format('%.0f', server_us()), id)
redis.call('PEXPIRE', KEYS[3], ttl)
local over = redis.call('ZCARD', KEYS[3]) - options.max_kept
for _, old in ipairs(over > 0 and redis.call('ZRANGE', KEYS[3], 0, options.max_kept) or {}) do
  local state = redis.call('HGET', prefix .. old, 'state')
  if over > 0 and state ~= 'running' and state ~= 'paused' then -- there are few of these: one of each kind
    redis.call('DEL', prefix .. old, prefix .. old .. ERRORS, prefix .. old .. REPLAYS)
    redis.call('ZREM', KEYS[3], old)
    over = over - 1
  end
end
local entry = {'action', 'operation_started', 'actor', fields.actor, 'reason', fields.reason, 'operation', id}
for _, name in ipairs({'kind', 'scope', 'rate', 'max_items', 'canary', 'total', 'total_exact', 'selector'}) do
  local value = fields[name] or ''
  if name == 'scope' and fields.kind ~= 'replay' then value = '' end
  if #value > 1000 then value = string.sub(value, 1, 997) .. '...' end -- it may have a thousand ids, and is ASCII
  entry[#entry + 1] = name; entry[#entry + 1] = value
end
audit(KEYS[4], entry)
return false
