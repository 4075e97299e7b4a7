-- Hold a group for its active consumer, or renew the hold. If another consumer was active since, a new term begins.
--
-- KEYS  who is active, the latest term
-- ARGV  the token of this consumer's term ('' for none), the token of its next term, time to live in ms, for how many
--       ms the latest term is remembered, until when a term may begin after another consumer's, by the server's clock in
--       ms: if it is later, the clock stepped, and that consumer may live; whether a renewal begins the time again for
--       which the latest term is remembered (1 | 0)
-- Returns {the token of the group's term, which is one of these two or another consumer's, now in ms}.
-- include: lib/time.lua
local function is_own(token) return token and (token == ARGV[1] or token == ARGV[2]) end

local now, holder = server_ms(), redis.call('GET', KEYS[1])
if holder and not is_own(holder) then return {holder, now} end
if holder then -- a server without free memory still runs this, but not a SET
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  if ARGV[6] == '1' then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
  return {holder, now}
end
local latest = redis.call('GET', KEYS[2])
if latest and not is_own(latest) and now > tonumber(ARGV[5]) then return {latest, now} end
local token = is_own(latest) and latest or ARGV[2]
redis.call('SET', KEYS[2], token, 'PX', ARGV[4])
redis.call('SET', KEYS[1], token, 'PX', ARGV[3])
return {token, now}
