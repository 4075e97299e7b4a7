-- Continue to restore the waiting and parked entries of a group that was lost and recreated.
--
-- KEYS  stream, ledger, due, parked, how far it is restored
-- ARGV  group
-- Returns 1 if there is more to restore, else 0.
-- include: lib/holding_consumers.lua
return restore_step(KEYS[1], ARGV[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]) and 1 or 0
