-- The rates of a group: what its workers did in each ten seconds of about the last hour, in one string of records.
--
-- A record is {its ten seconds since 1970, entries ever added to the stream at their end (-1: not known, or its last one was deleted), a number for
-- each thing that is counted}. A record's place in the string follows from its time, so an old one is overwritten.
-- include: lib/ids.lua

-- Add what one worker has counted in the ten seconds before now, and note how many entries the stream ever got.
-- Without free memory or permission it does nothing: counts are no reason to fail.
local function add_rates(key, stream, now, rates)
  pcall(function()
    local count = #rates.counts
    local format, size = '>I4d' .. string.rep('I4', count), 12 + 4 * count
    local time = math.floor(now / rates.period_ms) - 1
    local at = time % rates.records * size
    local found = redis.call('GETRANGE', key, at, at + size - 1)
    local record = #found == size and {struct.unpack(format, found)} or {}
    if record[1] ~= time then -- of an hour ago, or none
      local added
      if redis.call('XLEN', stream) > 0 then
        added = added_to(stream)
      else
        added = fields(redis.call('XINFO', 'STREAM', stream))['entries-added']
      end
      record = {time, added or -1}
      for index = 1, count do record[index + 2] = 0 end
    end
    for index, counted in ipairs(rates.counts) do
      record[index + 2] = math.min(record[index + 2] + counted, 4294967295)
    end
    redis.call('SETRANGE', key, at, struct.pack(format, unpack(record, 1, count + 2)))
    redis.call('PEXPIRE', key, rates.ttl_ms)
  end)
end
