-- The state of a stream, without the fields of its entries.
--
-- KEYS  stream
-- Returns {now in ms, length, first id, last id, the last id it assigned, entries ever added, groups, memory in bytes},
-- with false for what does not exist or what this server does not know.
-- include: lib/time.lua
-- include: lib/fields.lua
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if info.err then return info end
local is = fields(info)
local function id_of(entry) return entry and entry[1] end

local memory = redis.pcall('MEMORY', 'USAGE', KEYS[1]) -- a managed server, or its ACL, may not allow it
if type(memory) ~= 'number' then memory = false end

return {
  server_ms(), is.length, id_of(is['first-entry']), id_of(is['last-entry']),
  is['last-generated-id'], is['entries-added'] or false, is.groups, memory,
}
