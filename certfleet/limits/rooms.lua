-- Waiting rooms: the orders that wait for one bucket, most urgent first. Behind clock.lua, schedule.lua, gcra.lua.
--
-- KEYS[1..2]  agenda, leases (schedule.lua); KEYS[3] is the agenda's fence counter
-- ARGV[2]     the prefix of every key; what follows belongs to the verb's own file
--
-- admission:<app>     hash    what the app's live order asked of the limits, and how far it is:
--     order wish version   whose it is: the order, what it asks for, and by which version of the limits
--     party rank           where it stands among others: see below
--     charges              a line each: phase kind keep interval burst key
--                            phase  o: the CA counts it at newOrder   i: at issuance, asks it at newOrder
--                                   n: at issuance, never asks        c: is asked at newOrder, is not counted
--                            kind   s: shared with other orders       p: this order's own (exact set, failures)
--     state                waiting, called (to ask anew, by other limits: nobody waits before it), admitted (tokens
--                            reserved), ordered (newOrder counted)
--     queue tries entered admitted sent   its queue; decisions so far; microseconds
-- queue:<queue>       sorted set  app -> rank: orders of one party that need the same shared buckets
-- party:<room>:<party> sorted set  queue -> rank of its head
-- room:<room>         sorted set  party -> turn: u (emergency) -2, r (by deadline) -1, t:<tenant> when last served
-- rooms               hash    room -> "interval burst phase key" of its bucket, for every room where somebody waits
-- queues              hash    queue -> "room party": each queue waits in one room, that of a bucket its head lacks
-- turn:<room>         sorted set  app -> when its place ends: newOrders under way that this bucket is spent by
-- openings            hash    room -> how often a gate that costs no token was opened since anybody waits there
-- admissions          stream  how the last orders came through: app, party, rank, tries, entered, admitted
--
-- Queues move between rooms, not orders: an order is looked at when it stands first, and costs nothing before.
-- Keys of buckets come from records and are not declared: this needs one server, no cluster.

local prefix = ARGV[2]
local ADMISSIONS = 20000 -- entries of the stream, about 3 MB
local PLACE = 5000000 -- microseconds that a newOrder keeps its place when nothing is heard of it

local function key_of(...)
  return prefix .. table.concat({ ... }, ":")
end

local function room_of(bucket_key)
  return redis.sha1hex(bucket_key):sub(1, 16)
end

local function load_record(app)
  local flat, record = redis.call("HGETALL", key_of("admission", app)), {}
  if #flat == 0 then return nil end
  for i = 1, #flat, 2 do record[flat[i]] = flat[i + 1] end
  return record
end

local function charges_of(text)
  local charges = {}
  for phase, kind, keep, interval, burst, key in text:gmatch("(%l) (%l) (%d+) (%d+) (%d+) ([^\n]+)") do
    charges[#charges + 1] = { phase = phase, kind = kind, keep = tonumber(keep), interval = tonumber(interval),
      burst = tonumber(burst), key = key, room = room_of(key) }
  end
  return charges
end

local function bucket_of(charge)
  return load_bucket(charge.key, charge.interval, charge.burst)
end

local function line_of(charge)
  return string.format("%s %s %.0f %.0f %.0f %s", charge.phase, charge.kind, charge.keep, charge.interval, charge.burst,
    charge.key)
end

-- Of the charges that deny, the one that frees last, and when (from now); nil when all are there.
local function lacking(charges, phases)
  local worst, retry_in = nil, -1
  for _, charge in ipairs(charges) do
    if phases:find(charge.phase, 1, true) then
      local said = decide(bucket_of(charge), 1, charge.keep)
      if said.allowed == 0 and said.retry_in > retry_in then worst, retry_in = charge, said.retry_in end
    end
  end
  return worst, retry_in
end

local function each(charges, phases, act)
  for _, charge in ipairs(charges) do
    if phases:find(charge.phase, 1, true) then act(bucket_of(charge), 1) end
  end
end

local function first(name)
  local found = redis.call("ZRANGE", name, 0, 0, "WITHSCORES")
  return found[1], tonumber(found[2])
end

local function open_gate(room, at)
  schedule("gate:" .. room, at)
end

local function look_after(room)
  if not redis.call("ZSCORE", agenda, "gate:" .. room) then open_gate(room, now) end
end

local function place_of(queue)
  local text = redis.call("HGET", key_of("queues"), queue)
  if not text then return nil end
  return text:match("^(%x+) (.+)$")
end

local function turn_of(party, room)
  if party == "u" then return -2 elseif party == "r" then return -1 end
  -- A tenant that comes in goes behind those that have waited for their next turn, not behind their orders.
  local last = redis.call("ZREVRANGE", key_of("room", room), 0, 0, "WITHSCORES")[2]
  return math.max(0, tonumber(last or -1) + 1)
end

local function register(queue, party, charge)
  local room = charge.room
  local _, rank = first(key_of("queue", queue))
  redis.call("ZADD", key_of("party", room, party), rank, queue)
  if not redis.call("ZSCORE", key_of("room", room), party) then
    redis.call("ZADD", key_of("room", room), turn_of(party, room), party)
  end
  redis.call("HSET", key_of("queues"), queue, room .. " " .. party)
  redis.call("HSET", key_of("rooms"), room,
    string.format("%.0f %.0f %s %s", charge.interval, charge.burst, charge.phase, charge.key))
end

local function unregister(queue)
  local room, party = place_of(queue)
  redis.call("HDEL", key_of("queues"), queue)
  if not room then return end
  redis.call("ZREM", key_of("party", room, party), queue)
  if redis.call("EXISTS", key_of("party", room, party)) == 0 then
    redis.call("ZREM", key_of("room", room), party)
    if redis.call("EXISTS", key_of("room", room)) == 0 then
      redis.call("HDEL", key_of("rooms"), room)
      redis.call("HDEL", key_of("openings"), room)
    end
  end
end

-- The queue has another head, or none.
local function refresh(queue)
  local app, rank = first(key_of("queue", queue))
  if not app then return unregister(queue) end
  local room, party = place_of(queue)
  if room then redis.call("ZADD", key_of("party", room, party), rank, queue) end
end

local function signature(party, charges, own)
  local words = { party }
  for _, charge in ipairs(charges) do
    if charge.kind == "s" then words[#words + 1] = charge.key end
  end
  if own.kind == "p" then words[#words + 1] = own.key end
  return redis.sha1hex(table.concat(words, "\n")):sub(1, 20)
end

-- Let the order wait for `charge`, which is thought to be there at `at` (nil: for others, its gate has its time).
local function wait_for(app, record, charges, charge, at)
  local queue = signature(record.party, charges, charge)
  redis.call("HSET", key_of("admission", app), "state", "waiting", "queue", queue)
  redis.call("ZADD", key_of("queue", queue), record.rank, app)
  local room, party = place_of(queue)
  if room then
    local _, rank = first(key_of("queue", queue))
    redis.call("ZADD", key_of("party", room, party), rank, queue)
  else
    register(queue, record.party, charge)
    room = charge.room
  end
  if at then open_gate(room, at) else look_after(room) end
  return room
end

local function step_out(app, record)
  redis.call("ZREM", key_of("queue", record.queue), app)
  refresh(record.queue)
end

local function give_up_turns(app, charges)
  for _, charge in ipairs(charges) do
    if charge.phase == "o" or charge.phase == "i" then redis.call("ZREM", key_of("turn", charge.room), app) end
  end
end

-- Give back what is reserved; whoever waits for it may go in at once.
local function free(charges, phases)
  each(charges, phases, release)
  for _, charge in ipairs(charges) do
    if phases:find(charge.phase, 1, true) and redis.call("HEXISTS", key_of("rooms"), charge.room) == 1 then
      open_gate(charge.room, now)
    end
  end
end

-- End the record: out of its queue, or with its tokens given back. A newOrder of which nothing was heard counts.
local function leave(app, record)
  local charges = charges_of(record.charges)
  if record.state == "waiting" then
    step_out(app, record)
  else
    if record.sent then
      each(charges, "o", settle)
      free(charges, "i")
    else
      free(charges, "oi")
    end
    give_up_turns(app, charges)
  end
  redis.call("DEL", key_of("admission", app))
end

local function admit(app, charges)
  each(charges, "oi", reserve)
  redis.call("HSET", key_of("admission", app), "state", "admitted", "admitted", whole(now))
  redis.call("HDEL", key_of("admission", app), "sent", "queue")
end
