local function audit(log, fields)
  redis.call('XADD', log, 'MAXLEN', '~', '10000', '*', unpack(fields))
  redis.call('PEXPIRE', log, '7776000000')
end
