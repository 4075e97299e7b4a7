-- Release what this process still holds.
--
-- KEYS  the key of a name, or those of a term
-- ARGV  the process's token
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end
end
