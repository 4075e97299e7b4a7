-- Delete the index of a dead-letter stream, so that it is rebuilt.
--
-- KEYS  index, audit log
-- ARGV  actor, reason
-- include: lib/letter_index.lua
-- include: lib/audit.lua
drop_index(KEYS[1])
audit(KEYS[2], {'action', 'letters_reindexed', 'actor', ARGV[1], 'reason', ARGV[2]})
