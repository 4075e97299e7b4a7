-- An entry of an audit log: what was done (`action`), to what (`letter`, `operation` or `group`), by whom and why.
-- About 10,000 entries are kept, until 90 days after the last one.
local function audit(log, entry)
  redis.call('XADD', log, 'MAXLEN', '~', '10000', '*', unpack(entry))
  redis.call('PEXPIRE', log, '7776000000')
end
