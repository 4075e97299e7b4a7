-- The server's clock: milliseconds since 1970, as a number and as text.
local function server_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function server_time() return string.format('%.0f', server_ms()) end
