-- with moving

-- Bring a discarded letter back into its stream: same letter, same id, in a new entry. Returns the entry's id, or
-- nothing if it was not discarded last.
local function bring_back(keys, row, maxlen, change)
  local letter, letter_id = row[2], value_of(row[2], LETTER)
  local history = value_of(letter, HISTORY)
  local changes = cjson.decode(history)
  if changes[#changes].action ~= 'discarded' then return nil end
  local entry_id = next_letter_id(last_id_of(keys.dlq), math.floor(microseconds() / 1000))
  change.entry_id = entry_id
  local fields = {}
  for i = 1, #letter, 2 do
    if letter[i] ~= 'letter_id' and letter[i] ~= HISTORY and letter[i] ~= LETTER then
      fields[#fields + 1] = letter[i]; fields[#fields + 1] = letter[i + 1]
    end
  end
  -- Letters of other versions have no id of their own but their first entry's; forged ones claim another's.
  fields[#fields + 1] = 'letter_id'; fields[#fields + 1] = letter_id
  fields[#fields + 1] = HISTORY; fields[#fields + 1] = changed(history, change)
  append_letter(keys.dlq, keys.index, maxlen, entry_id, fields)
  take_out(keys.archive, keys.archived, tonumber(string.match(row[1], '^%d+')), letter_id)
  redis.call('ZADD', keys.restored, string.match(entry_id, '^%d+'), letter_id)
  return entry_id
end

-- What was restored and trimmed away since is forgotten.
local function bound_restored(dlq, restored)
  local oldest = redis.call('XRANGE', dlq, '-', '+', 'COUNT', 1)[1]
  if oldest then redis.call('ZREMRANGEBYSCORE', restored, '-inf', '(' .. string.match(oldest[1], '^%d+')) end
end
