-- Lua compares text by the server's locale, but Redis orders by bytes.
local function is_below(one, other)
  for i = 1, math.min(#one, #other) do
    local byte, other_byte = string.byte(one, i), string.byte(other, i)
    if byte ~= other_byte then return byte < other_byte end
  end
  return #one < #other
end
