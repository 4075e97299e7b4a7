-- Whether a term has ended: another consumer is the active one, or was since. The latest term is remembered when no
-- consumer holds the group, and nobody else was given anything while it is still the same.
local function has_ended(token, exclusive, term)
  return (redis.call('GET', exclusive) or redis.call('GET', term)) ~= token
end
