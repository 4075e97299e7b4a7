-- The server's clock: microseconds and milliseconds since 1970, and milliseconds as text.
local function server_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function server_ms() return math.floor(server_us() / 1000) end

local function server_time() return string.format('%.0f', server_ms()) end
