-- include: lib/letter_archive.lua

-- Restore a discarded letter to its stream: the same letter with the same id, in a new entry at `now` (ms) if that is
-- after `before`, the stream's last id. Returns the entry's id, or nothing if its last change was not a discard.
local function restore_letter(keys, row, maxlen, change, before, now)
  local letter, letter_id, history = row[2]
  for i = 1, #letter, 2 do -- the last ones, which Rapids wrote
    if letter[i] == LETTER then letter_id = letter[i + 1] end
    if letter[i] == HISTORY then history = letter[i + 1] end
  end
  local changes = changes_in(history)
  local last = changes[#changes]
  if type(last) ~= 'table' or last.action ~= 'discarded' then return nil end
  local entry_id, stored = next_letter_id(before, now), {}
  change.entry_id = entry_id
  for i = 1, #letter, 2 do
    if letter[i] ~= 'letter_id' and letter[i] ~= HISTORY and letter[i] ~= LETTER then
      stored[#stored + 1] = letter[i]; stored[#stored + 1] = letter[i + 1]
    end
  end
  -- Letters of other versions have only the id of their first entry; forged letters claim another letter's id.
  stored[#stored + 1] = 'letter_id'; stored[#stored + 1] = letter_id
  stored[#stored + 1] = HISTORY; stored[#stored + 1] = changed(history, change)
  write_letter(keys.dlq, keys.index, maxlen, entry_id, before, stored)
  remove_archived(keys.archive, keys.archived, tonumber(string.match(row[1], '^%d+')), letter_id)
  redis.call('ZADD', keys.restored, string.match(entry_id, '^%d+'), letter_id)
  return entry_id
end

-- Letters that were restored and trimmed since then are removed, as soon as there are more than the stream has letters.
local function bound_restored(dlq, restored)
  if redis.call('ZCARD', restored) <= redis.call('XLEN', dlq) then return end
  local oldest = redis.call('XRANGE', dlq, '-', '+', 'COUNT', 1)[1]
  if oldest then redis.call('ZREMRANGEBYSCORE', restored, '-inf', '(' .. string.match(oldest[1], '^%d+')) end
end
