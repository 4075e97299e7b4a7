-- The state of the index of a dead-letter stream. Letters that are not indexed yet are indexed first, up to a limit.
--
-- KEYS  dead-letter stream, index
-- ARGV  how many letters to index at most, and how many bytes of them
-- Returns {letters in the stream, its last id, the id up to which it is indexed, entries of the index, epoch,
-- letters trimmed, when last (ms, or false), fingerprints}. A fingerprint is {name, description or false, letters,
-- first id, last id}.
-- include: lib/letter_index.lua
-- include: lib/names.lua
local dlq, index = KEYS[1], KEYS[2]
local length, last = redis.call('XLEN', dlq), last_id_of(dlq)

local function bring_up_to_date()
  if is_before(last, redis.call('HGET', index, 'to') or '0-0') then drop_index(index) end
  if last ~= (redis.call('HGET', index, 'to') or '0-0') then catch_up(dlq, index, tonumber(ARGV[1]), tonumber(ARGV[2])) end
  if tonumber(redis.call('HGET', index, 'entries') or 0) > length then sweep(dlq, index) end
end

local function look()
  local rows, all = {}, 0
  for _, name in ipairs(fingerprints_of(index)) do
    local key = index .. ':' .. name
    local count = redis.call('XLEN', key)
    if count > 0 then
      rows[#rows + 1] = {
        name, redis.call('HGET', index .. FINGERPRINTS, name), count,
        redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1][1], redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1][1],
      }
      all = all + count
    end
  end
  return rows, all
end

with_index(index, bring_up_to_date)
local ok, rows, all = pcall(look)
if not ok and not is_one_of({'WRONGTYPE '}, rows) then error(rows) end
if not ok or all ~= tonumber(redis.call('HGET', index, 'entries') or 0) then -- a key was lost or overwritten
  with_index(index, function()
    drop_index(index)
    bring_up_to_date()
  end)
  rows = look()
end
local known = redis.call('HMGET', index, 'to', 'entries', 'epoch', 'cut', 'cut_at')
return {
  length, last, known[1] or '0-0', tonumber(known[2] or 0), known[3] or '0', tonumber(known[4] or 0), known[5], rows,
}
