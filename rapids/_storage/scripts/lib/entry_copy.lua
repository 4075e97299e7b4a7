-- A letter with the fields of its entry, which were too large to be sent or could not be fetched. `letter` has them
-- empty, and `original_fields` last; `names` are those of a regular entry, in order. The fields that a replay added to
-- its event say which handler and letter it is of.
local REPLAY_FIELDS = {'replay_handler', 'replay_of', 'replay_count', 'original_msg_id'}
local OF_REPLAY = {handler = 'replay_handler', replay_of = 'replay_of', replay_count = 'replay_count',
  original_msg_id = 'original_msg_id'}

local function with_entry(letter, names, entry, is_replay)
  local count, replay = #entry, is_replay and {} or nil
  for i, name in ipairs(is_replay and REPLAY_FIELDS or {}) do
    local at = #entry - 2 * #REPLAY_FIELDS + 2 * i - 1
    if entry[at] == name then replay[name] = entry[at + 1] else replay = nil break end
  end
  if replay then count = count - 2 * #REPLAY_FIELDS end
  local values, is_copied, parts, is_regular = {}, {}, {}, count == 2 * #names
  for i, name in ipairs(names) do
    is_copied[name] = true
    is_regular = is_regular and entry[2 * i - 1] == name
  end
  for i = 1, count, 2 do
    if values[entry[i]] == nil then values[entry[i]] = entry[i + 1] end
  end
  if not is_regular then
    for i = 1, count do parts[i] = #entry[i] .. ':' .. entry[i] .. ',' end
  end
  local copy = {}
  for i = 1, #letter, 2 do
    local name, value = letter[i], letter[i + 1]
    if is_copied[name] then value = values[name] or '' end
    if replay and OF_REPLAY[name] then value = replay[OF_REPLAY[name]] end
    if name == 'original_fields' then value = not is_regular and table.concat(parts) end
    if value then copy[#copy + 1] = name; copy[#copy + 1] = value end
  end
  return copy
end
