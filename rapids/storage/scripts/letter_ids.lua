-- with indexing

local function next_letter_id(before, now)
  -- Explicit, so that the letter can hold its own id. The stream's last id may be ahead of the clock.
  local ms, seq = now, 0
  local last_ms, last_seq = string.match(before, '(%d+)-(%d+)')
  last_ms, last_seq = tonumber(last_ms), tonumber(last_seq)
  if last_ms >= ms then ms, seq = last_ms, last_seq + 1 end
  return string.format('%.0f-%.0f', ms, seq)
end

local function add_letter(dlq, index, now, maxlen, values, first, last)
  local before = last_id_of(dlq)
  local letter_id, letter = next_letter_id(before, now), {}
  for i = first, last do letter[#letter + 1] = values[i] end
  letter[#letter + 1] = 'letter_id'; letter[#letter + 1] = letter_id
  write_letter(dlq, index, maxlen, letter_id, before, letter)
  pcall(link_replay, index, letter_id, letter)
  return letter_id
end
