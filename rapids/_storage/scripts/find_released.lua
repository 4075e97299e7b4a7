-- The pending entries that nobody holds, since a consumer released them by XNACK (https://redis.io/commands/xnack/).
--
-- KEYS  stream
-- ARGV  group, where to begin ('-', or '(' and an entry id), how many pending entries to look at
-- Returns {where to continue, '-' at the end, rows of the pending list}.
-- include: lib/entry.lua
-- include: lib/names.lua
local most, found = tonumber(ARGV[3]), {}
local page = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], '+', most)
for _, row in ipairs(page) do
  if row[2] == NOBODY then found[#found + 1] = {row[1], row[2], row[3], deliveries_of(row)} end
end
return {#page == most and '(' .. page[#page][1] or '-', found}
