-- An entry of an audit log: what was done (`action`), to what (`letter`, `operation` or `group`), by whom and why.
-- About 10,000 entries are kept, until 90 days after the last one.
local function audit(log, entry)
  redis.call('XADD', log, 'MAXLEN', '~', '10000', '*', unpack(entry))
  redis.call('PEXPIRE', log, '7776000000')
end

-- What an entry says of an operation, `held` its kind, done, skipped and failed: how many letters it has moved, has
-- found gone, and could not move.
local function add_progress(entry, held)
  for i, name in ipairs({'kind', 'done', 'skipped', 'failed'}) do
    entry[#entry + 1] = name; entry[#entry + 1] = held[i] or ''
  end
  return entry
end
