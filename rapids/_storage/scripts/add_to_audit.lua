-- Add an entry to an audit log about something that changed nothing in Redis.
--
-- KEYS  the audit log
-- ARGV  names and values of the entry
-- include: lib/audit.lua
audit(KEYS[1], ARGV)
