-- Index letters that were written without the index, up to a limit.
--
-- KEYS  dead-letter stream, index
-- ARGV  how many letters at most, and how many bytes of them
-- Returns 0 if more letters can be indexed at once, else 1: all are indexed, or it is impossible now.
-- include: lib/letter_index.lua
local dlq, index = KEYS[1], KEYS[2]
local last, to = last_id_of(dlq), redis.call('HGET', index, 'to') or '0-0'
if is_before(last, to) then
  drop_index(index)
  to = '0-0'
end
if last == to then return 1 end
return with_index(index, catch_up, dlq, index, tonumber(ARGV[1]), tonumber(ARGV[2])) == false and 0 or 1
