-- Compares numbers as text, since an id may be too large for a Lua number.
local function is_smaller(one, other)
  if #one ~= #other then return #one < #other end
  return one < other
end

local function is_before(one, other)
  local ms, seq = string.match(one, '(%d+)-(%d+)')
  local other_ms, other_seq = string.match(other, '(%d+)-(%d+)')
  if ms ~= other_ms then return is_smaller(ms, other_ms) end
  return is_smaller(seq, other_seq)
end
