-- include: lib/letter_archive.lua

-- Bring a discarded letter back into its stream: same letter, same id, in a new entry, `now` (ms) if that is behind
-- `before`, the stream's last id. Returns the entry's id, or nothing if it was not discarded last.
local function bring_back(keys, row, maxlen, change, before, now)
  local letter, letter_id, history = row[2]
  for i = 1, #letter, 2 do -- the last ones, which are ours
    if letter[i] == LETTER then letter_id = letter[i + 1] end
    if letter[i] == HISTORY then history = letter[i + 1] end
  end
  local changes = changes_in(history)
  local last = changes[#changes]
  if type(last) ~= 'table' or last.action ~= 'discarded' then return nil end
  local entry_id, fields = next_letter_id(before, now), {}
  change.entry_id = entry_id
  for i = 1, #letter, 2 do
    if letter[i] ~= 'letter_id' and letter[i] ~= HISTORY and letter[i] ~= LETTER then
      fields[#fields + 1] = letter[i]; fields[#fields + 1] = letter[i + 1]
    end
  end
  -- Letters of other versions have no id of their own but their first entry's; forged ones claim another's.
  fields[#fields + 1] = 'letter_id'; fields[#fields + 1] = letter_id
  fields[#fields + 1] = HISTORY; fields[#fields + 1] = changed(history, change)
  write_letter(keys.dlq, keys.index, maxlen, entry_id, before, fields)
  take_out(keys.archive, keys.archived, tonumber(string.match(row[1], '^%d+')), letter_id)
  redis.call('ZADD', keys.restored, string.match(entry_id, '^%d+'), letter_id)
  return entry_id
end

-- What was restored and trimmed away since is forgotten.
local function bound_restored(dlq, restored) -- no more than the stream has
  local oldest = redis.call('XRANGE', dlq, '-', '+', 'COUNT', 1)[1]
  if oldest then redis.call('ZREMRANGEBYSCORE', restored, '-inf', '(' .. string.match(oldest[1], '^%d+')) end
end
