-- The ids of a stream without the fields of its entries, which may be large. Commands that return entries return their
-- fields as well, but a group has only ids: it exists within the script, so that nobody else ever sees it.
-- include: lib/fields.lua
-- include: lib/names.lua

-- What `ask` returns while there is such a group at the stream's last id. Nothing if the server refuses it: it has no
-- free memory, is a replica, or its user may not create groups. Then the entries are read.
local function with_ids(stream, ask)
  -- Not DESTROY first: after any write, a full server lets a script write more.
  local made = redis.pcall('XGROUP', 'CREATE', stream, IDS, '$')
  if made.err and string.find(made.err, 'BUSYGROUP', 1, true) then -- a crash cut a script off
    redis.call('XGROUP', 'DESTROY', stream, IDS)
    made = redis.pcall('XGROUP', 'CREATE', stream, IDS, '$')
  end
  if made.err then return nil end
  local ok, found = pcall(ask)
  redis.call('XGROUP', 'DESTROY', stream, IDS)
  return ok and found or nil
end

-- A group of a stream; nil if there is none with this name.
local function group_of(stream, name)
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = fields(row)
    if group.name == name then return group end
  end
end

-- The last id that a stream ever assigned; 0-0 if there is no such stream.
local function last_id_of(stream)
  if redis.call('EXISTS', stream) == 0 then return '0-0' end
  return with_ids(stream, function() return group_of(stream, IDS)['last-delivered-id'] end)
    or fields(redis.call('XINFO', 'STREAM', stream))['last-generated-id']
end

-- Those of some ids that are in a stream, in their order. There may be a few thousand.
local function existing(stream, ids)
  if #ids == 0 then return {} end
  local claim = {'XCLAIM', stream, IDS, IDS, 0}
  for _, id in ipairs(ids) do claim[#claim + 1] = id end
  claim[#claim + 1] = 'FORCE'; claim[#claim + 1] = 'JUSTID'
  local found = with_ids(stream, function() return redis.call(unpack(claim)) end)
  if found then return found end
  found = {}
  for _, id in ipairs(ids) do
    if #redis.call('XRANGE', stream, id, id) > 0 then found[#found + 1] = id end
  end
  return found
end

-- How many entries were ever added to a stream; nil if the server does not count, or the last one was deleted.
local function added_to(stream)
  return with_ids(stream, function()
    local last = group_of(stream, IDS)['last-delivered-id']
    if #redis.call('XCLAIM', stream, IDS, IDS, 0, last, 'FORCE', 'JUSTID') == 0 then return nil end
    redis.call('XGROUP', 'SETID', stream, IDS, '$', 'ENTRIESREAD', 0) -- a group that has read none of them
    return group_of(stream, IDS).lag
  end)
end

local function is_in(stream, id) return #existing(stream, {id}) > 0 end
