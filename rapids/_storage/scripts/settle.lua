-- Settle one entry: write its dead letters, write the ledger, and last of all acknowledge, keep, park or release it.
-- Redis does not roll a script back when a command in it fails, so the order prevents the loss of an entry: until the
-- last step the entry is pending, and the ledger prevents a second run from writing a letter twice.
--
-- KEYS  stream, ledger, due, parked, dead-letter stream, its index (any keys if there are no letters), how far the
--       waiting and parked entries of a lost group are restored; in a group with one active consumer, who is active
--       and the latest term
-- ARGV  options, the ledger to write (in it, a handler that waits has a delay in ms, or its due time if it waited
--       before), the ledger from when the entry was taken ('' for none), why it is parked, then the names and values
--       of all letters
-- Options, as JSON:
--   group, consumer, id  the entry and who has it
--   verb        ack | keep | park | release | bury: write the letters of an entry that is no longer pending or in the
--               stream, and that only this consumer can have handled
--   is_replay   whether the entry is deleted after its acknowledgement
--   delay       in ms
--   deliveries  the delivery count to set (release)
--   delivery    the delivery that is settled
--   maxlen      maximum length of the dead-letter stream, as text: a number of Lua has 53 bits; 0 for none
--   letters     for each letter {handler, number of its names and values, whether it gets the entry's fields here}
--   fields      the names of a regular entry's fields, for such a letter
--   term        in a group with one active consumer, the token of the term in which the entry was taken
-- Returns what was done: acked, kept, parked, released, buried; or gone (it was no longer pending), lost (another
-- consumer has it, or is active: only the finished handlers were written), stale (this consumer got it again since: it was settled
-- before), trimmed (it is no longer in the stream and cannot be delivered again: only letters were written).
-- include: lib/letters.lua
-- include: lib/fields.lua
-- include: lib/holding_consumers.lua
-- include: lib/time.lua
-- include: lib/names.lua
-- include: lib/entry.lua
-- include: lib/term.lua
-- include: lib/entry_copy.lua
-- include: lib/ids.lua
local stream, ledger_key, due_key, parked_key, dlq, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local options, ledger = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local group, consumer, id, verb = options.group, options.consumer, options.id, options.verb

local function acknowledge()
  redis.call('XACK', stream, group, id)
  if options.is_replay then redis.call('XDEL', stream, id) end
  forget(ledger_key, due_key, parked_key, id)
end

local function merged(into, names)
  local seen, all = {}, {}
  for _, list in ipairs({into, names}) do
    for _, name in ipairs(list) do
      if not seen[name] then seen[name] = true; all[#all + 1] = name end
    end
  end
  return all
end

local now = server_ms()
local due = now + options.delay
for _, wait in pairs(ledger.waits or {}) do
  if wait.delay then wait.due, wait.delay = now + wait.delay, nil end
  due = math.min(due, wait.due)
end

local function write_ledger(done, dead, gave_up, of)
  -- An empty Lua table is written as {}, which is read as empty in both cases. `of` has waits and failed attempts.
  redis.call('HSET', ledger_key, id, cjson.encode(
    {n = ledger.n, done = done, dead = dead, gave_up = gave_up, waits = of.waits, attempts = of.attempts}))
end

local function has_letter(handler)
  -- An entry that is not pending has no ledger. If it was settled, that was just now: so its letter is a late one.
  local from, looked, bytes = '+', 0, 0
  while looked < 1000 and bytes < 16000000 do
    local row = redis.call('XREVRANGE', dlq, from, '-', 'COUNT', 1)[1]
    if not row then return false end
    local letter = fields(row[2])
    local is_of_entry = letter.original_msg_id == id and letter.original_group == group
    if is_of_entry and letter.handler == handler then return true end
    for _, value in ipairs(row[2]) do bytes = bytes + #value end
    from, looked = '(' .. row[1], looked + 1
  end
  return false
end

local pending = pending_of(stream, group, id)
local buries = verb == 'bury' and not pending
if not pending and not buries then
  -- An entry that must be delivered again still waits, even if its group was lost and recreated without it.
  if not redis.call('ZSCORE', due_key, id) then forget(ledger_key, due_key, parked_key, id) end
  return 'gone'
end

local known = {done = {}, dead = {}, gave_up = {}}
local stored = redis.call('HGET', ledger_key, id)
if stored then known = cjson.decode(stored) end

local function is_undone()
  -- Whether the ledger no longer has a dead letter that it had when the entry was taken: a failover lost both.
  -- The handler did not run this time, and must run again.
  local has = {}
  for _, name in ipairs(known.dead) do has[name] = true end
  local taken = ARGV[3] ~= '' and cjson.decode(ARGV[3]) or {dead = {}}
  for _, name in ipairs(taken.dead) do
    if not has[name] then return true end
  end
  return false
end

local has_lost = options.term and has_ended(options.term, KEYS[8], KEYS[9])
if buries and has_lost then return 'lost' end
local undone = not buries and is_undone()
if not buries and (undone or has_lost or pending[2] ~= consumer) then
  -- The lease was lost: another consumer runs this entry now, or will. It need not repeat what this one finished.
  if verb == 'ack' and #options.letters == 0 and not undone then
    acknowledge()
  elseif #ledger.done > 0 then
    ledger.n = known.n or 0
    write_ledger(merged(known.done, ledger.done), known.dead, known.gave_up, known)
  end
  return 'lost'
end

if not buries and pending[4] > options.delivery then return 'stale' end

local entry
for _, one in ipairs(options.letters) do
  entry = entry or (one[3] and redis.call('XRANGE', stream, id, id)[1])
  if one[3] and not entry then return 'trimmed' end
end

local at, dead = 5, known.dead
for _, one in ipairs(options.letters) do
  local handler, values = one[1], one[2]
  local written = buries and has_letter(handler)
  for _, name in ipairs(known.dead) do written = written or name == handler end
  if not written then
    local letter, first, last = ARGV, at, at + values - 1
    if one[3] then
      letter = {}
      for i = first, last do letter[#letter + 1] = ARGV[i] end
      letter = with_entry(letter, options.fields, entry[2], options.is_replay)
      first, last = 1, #letter
    end
    add_letter(dlq, index, now, options.maxlen, letter, first, last)
    if not buries then
      dead = merged(dead, {handler})
      write_ledger(known.done, dead, known.gave_up, known)
    end
  end
  at = at + values
end

if buries then
  forget(ledger_key, due_key, parked_key, id)
  return 'buried'
end

if verb == 'ack' or verb == 'bury' then
  acknowledge()
  return 'acked'
end

if not is_in(stream, id) then return 'trimmed' end
write_ledger(merged(known.done, ledger.done), merged(dead, ledger.dead), ledger.gave_up, ledger)
if verb == 'park' then
  begin_restoring(stream, group, KEYS[7], PARKED, parked_key)
  restore_step(stream, group, ledger_key, due_key, parked_key, KEYS[7])
  redis.call('HSET', parked_key, id, ARGV[4])
  redis.call('ZREM', due_key, id)
  redis.call('XCLAIM', stream, group, PARKED, 0, id, 'JUSTID')
  return 'parked'
end
begin_restoring(stream, group, KEYS[7], WAITING, due_key)
restore_step(stream, group, ledger_key, due_key, parked_key, KEYS[7])
redis.call('ZADD', due_key, string.format('%.0f', due), id)
if verb == 'release' then
  redis.call('XCLAIM', stream, group, WAITING, 0, id, 'RETRYCOUNT', options.deliveries, 'JUSTID')
  return 'released'
end
redis.call('XCLAIM', stream, group, WAITING, 0, id, 'JUSTID')
return 'kept'
