-- include: lib/fields.lua

-- The last id that a stream ever assigned; 0-0 if there is no such stream.
local function last_id_of(stream)
  if redis.call('EXISTS', stream) == 0 then return '0-0' end
  return fields(redis.call('XINFO', 'STREAM', stream))['last-generated-id']
end
