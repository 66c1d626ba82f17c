-- The gate of one waiting room: whoever is first and has all tokens goes in. Behind rooms.lua.
--
-- ARGV[3..6]  room, version of the limits; interval, burst of its bucket by that version ("-": the limit is gone)
-- Answer: {when to come again in microseconds, or "-" when nobody waits, app, app, ...}: the admitted, and those whose
--   record is of another version and who therefore have to ask anew. All of them are on the agenda. Without any answer but
--   {"outdated"} when the limits have another version by now.

local room, version = ARGV[3], ARGV[4]
local AT_ONCE = 200 -- orders that one run looks at; the script holds Redis for a few milliseconds
local PAUSE = 1000000 -- microseconds between two openings of a gate that costs no token, or has sent somebody to ask anew

if (redis.call("GET", key_of("limits", "version")) or "0") ~= version then return { "outdated" } end

local told, again = {}, now
local text = redis.call("HGET", key_of("rooms"), room)
if not text then return { "-" } end
local phase, key = text:match("^%d+ %d+ (%l) (.+)$")
local interval, burst = tonumber(ARGV[5]), tonumber(ARGV[6])

-- Nobody knows what is behind a gate that the CA closed without a count: one at first, then twice as many each time.
local bound = AT_ONCE
if phase == "c" then
  bound = math.min(AT_ONCE, 2 ^ tonumber(redis.call("HGET", key_of("openings"), room) or "0"))
end

local function go(app, queue)
  redis.call("ZREM", key_of("queue", queue), app)
  refresh(queue)
  schedule("order:" .. app, now)
  told[#told + 1] = app
end

-- The tenant has had its turn: behind everybody who waits here.
local function served(party)
  if redis.call("ZSCORE", key_of("room", room), party) and party ~= "u" and party ~= "r" then
    local last = redis.call("ZREVRANGE", key_of("room", room), 0, 0, "WITHSCORES")[2]
    redis.call("ZADD", key_of("room", room), math.max(0, tonumber(last)) + 1, party)
  end
end

-- Whoever has to ask anew takes its token with that, not here: no more are sent than there are tokens, or the others would
-- be as quick as the first.
local looked, admitted, asking = 0, 0, 0
while looked < AT_ONCE and admitted < bound do
  local party = first(key_of("room", room))
  if not party then return { "-", unpack(told) } end
  local queue = first(key_of("party", room, party))
  local app = first(key_of("queue", queue))
  local record = app and load_record(app)
  looked = looked + 1
  if not record or record.state ~= "waiting" or record.queue ~= queue then
    if app then redis.call("ZREM", key_of("queue", queue), app) end
    refresh(queue)
  else
    local charges, own = charges_of(record.charges), nil
    for _, charge in ipairs(charges) do
      if charge.key == key then own = charge end
    end
    if interval then
      local said = decide(load_bucket(key, interval, burst), 1 + asking, own and math.min(own.keep, burst - 1) or 0)
      if said.allowed == 0 then
        local retry_in = asking > 0 and math.min(said.retry_in, PAUSE) or said.retry_in
        return { whole(now + retry_in), unpack(told) }
      end
    end
    admitted = admitted + 1
    if record.version ~= version then
      redis.call("HSET", key_of("admission", app), "state", "called", "charges", "")
      redis.call("HDEL", key_of("admission", app), "queue")
      go(app, queue)
      served(party)
      asking = asking + 1
    else
      redis.call("HINCRBY", key_of("admission", app), "tries", 1)
      local worst, retry_in = lacking(charges, "oic")
      if not worst then
        admit(app, charges)
        go(app, queue)
        served(party)
      else
        admitted = admitted - 1
        if signature(party, charges, worst) == queue then
          unregister(queue)
          register(queue, party, worst)
          open_gate(worst.room, now + retry_in)
        else
          step_out(app, record)
          wait_for(app, record, charges, worst, now + retry_in)
        end
      end
    end
  end
end
if not first(key_of("room", room)) then return { "-", unpack(told) } end
if phase == "c" and admitted >= bound then
  redis.call("HINCRBY", key_of("openings"), room, 1)
  again = now + PAUSE
end
if asking > 0 then again = now + PAUSE end
return { whole(again), unpack(told) }
