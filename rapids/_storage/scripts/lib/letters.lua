-- include: lib/letter_index.lua

-- The next number; both are text, since a Lua number may not hold them exactly.
local function following(number)
  local before, digit, nines = string.match(number, '^(%d-)([0-8]?)(9*)$')
  if digit == '' then digit = '0' end
  return before .. digit + 1 .. string.rep('0', #nines)
end

local MAX_SEQUENCE = '18446744073709551615'

local function next_letter_id(before, now)
  -- The id is explicit, so that the letter can hold its own id. The stream's last id may be ahead of the clock.
  local ms, seq = string.match(before, '(%d+)-(%d+)')
  if tonumber(ms) < now then return string.format('%.0f-0', now) end
  if seq == MAX_SEQUENCE then return following(ms) .. '-0' end
  return ms .. '-' .. following(seq)
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
