local function next_letter_id(dlq, now)
  -- Explicit, so that the letter can hold its own id. The stream's last id may be ahead of the clock.
  local ms, seq = now, 0
  if redis.call('EXISTS', dlq) == 1 then
    local info = redis.call('XINFO', 'STREAM', dlq)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then
        local last_ms, last_seq = string.match(info[i + 1], '(%d+)-(%d+)')
        last_ms, last_seq = tonumber(last_ms), tonumber(last_seq)
        if last_ms >= ms then ms, seq = last_ms, last_seq + 1 end
      end
    end
  end
  return string.format('%.0f-%.0f', ms, seq)
end

local function add_letter(dlq, now, maxlen, values, first, last)
  local letter_id = next_letter_id(dlq, now)
  local command = {'XADD', dlq}
  if maxlen ~= '0' then
    command[#command + 1] = 'MAXLEN'; command[#command + 1] = '~'; command[#command + 1] = maxlen
  end
  command[#command + 1] = letter_id
  for i = first, last do command[#command + 1] = values[i] end
  command[#command + 1] = 'letter_id'; command[#command + 1] = letter_id
  redis.call(unpack(command))
  return letter_id
end
