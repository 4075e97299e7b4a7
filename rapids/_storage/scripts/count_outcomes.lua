-- Count the outcomes of a canary's replays that are known by now. Each is counted once.
--
-- KEYS  the operation, its replays without an outcome, letters that failed again, archived letters by place
-- ARGV  options, as JSON:
--   token         the process's
--   max_failures  how many failures to keep
-- Returns nothing if the operation no longer runs, or is another process's; else {milliseconds since the last replay of
-- the step, the streams that still have replays without an outcome}.
-- include: lib/entry_id.lua
-- include: lib/ids.lua
-- include: lib/names.lua
-- include: lib/time.lua
local operation, replays, failed_again, archived = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local options = cjson.decode(ARGV[1])
local held = redis.call('HMGET', operation, 'state', 'owner', 'canary_since', 'canary_failures')
if held[1] ~= 'running' or held[2] ~= options.token then return false end

local streams, by_stream = {}, {}
local rows = redis.call('HGETALL', replays)
for i = 1, #rows, 2 do
  local entry_id, stream = string.match(rows[i + 1], '^(%S+) (.*)$')
  local sent = by_stream[stream]
  if not sent then
    sent = {ids = {}, letters = {}}
    by_stream[stream] = sent
    streams[#streams + 1] = stream
  end
  sent.ids[#sent.ids + 1] = entry_id
  sent.letters[entry_id] = rows[i]
end

local failures = (held[4] or '') ~= '' and cjson.decode(held[4]) or {}
local known, handled, failed = {}, 0, 0

local function fail(letter_id, outcome, new_letter_id)
  failed = failed + 1
  if #failures < options.max_failures then failures[#failures + 1] = {letter_id, outcome, new_letter_id} end
end

-- Those of the ids that the stream has. A key of another type has none of them.
local function left_in(stream, ids)
  local ok, found = pcall(existing, stream, ids)
  return ok and found or {}
end

local waits = {}
for _, stream in ipairs(streams) do
  local sent = by_stream[stream]
  local left = left_in(stream, sent.ids)
  local is_left, has_ended = {}, {}
  for _, entry_id in ipairs(left) do is_left[entry_id] = true end
  if #left > 0 then
    local group = string.match(stream, REPLAY_STREAM .. '(.*)')
    local why = redis.call('HMGET', stream .. BESIDE .. PARKED_OF .. group, unpack(left))
    for i, entry_id in ipairs(left) do has_ended[entry_id] = why[i] end
  end
  local ok, last = pcall(last_id_of, stream) -- before these entries if the stream was deleted and created again
  for _, entry_id in ipairs(sent.ids) do
    local letter_id = sent.letters[entry_id]
    if not is_left[entry_id] or has_ended[entry_id] then
      known[#known + 1] = letter_id
      local letters = redis.call('HGET', failed_again, letter_id)
      if letters then
        fail(letter_id, 'failed_again', string.match(letters, '^%S*'))
      elseif is_left[entry_id] then
        fail(letter_id, 'parked', '')
      elseif not ok or is_before(last, entry_id) or not redis.call('ZSCORE', archived, letter_id) then
        fail(letter_id, 'unknown', '')
      else
        handled = handled + 1
      end
    elseif waits[#waits] ~= stream then
      waits[#waits + 1] = stream
    end
  end
end

for i = 1, #known, 1000 do
  redis.call('HDEL', replays, unpack(known, i, math.min(i + 999, #known)))
end
if #known > 0 then
  redis.call('HINCRBY', operation, 'canary_handled', handled)
  redis.call('HINCRBY', operation, 'canary_failed', failed)
  if failed > 0 then redis.call('HSET', operation, 'canary_failures', cjson.encode(failures)) end
end
return {server_ms() - (tonumber(held[3] or '') or 0), waits}
