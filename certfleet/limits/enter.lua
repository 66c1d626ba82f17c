-- An order asks for its tokens: all of them now, or a place in a waiting room. Behind rooms.lua.
--
-- ARGV[3..10]  member, fence of the worker's claim; app, order, wish, version, party, rank (rooms.lua)
-- ARGV[11..12] charges; "new" while newOrder is still to be sent, else "made"
-- Answer: {state}, and for `waiting` the room. States: free (no limit holds it; nothing is kept of it), admitted, ordered,
--   waiting, stale (the claim is somebody else's now), outdated (the limits have another version)
-- Safe to repeat: the same order with the same wish finds what it has.

local member, fence, app, order, wish, version, party, rank = unpack(ARGV, 3, 10)
local charges, made = charges_of(ARGV[11]), ARGV[12] == "made"

local lease = lease_of(member)
if not held(lease) or whole(lease.fence) ~= fence then return { "stale" } end
if (redis.call("GET", key_of("limits", "version")) or "0") ~= version then return { "outdated" } end

local tries, entered, called = 0, whole(now), false
local known = load_record(app)
if known then
  -- One that was ordered and has to be again was given up at the CA, and whoever gave it up died, or did not say so.
  local given_up = known.state == "ordered" and not made
  local same = known.order == order and known.wish == wish and not given_up
  called = known.state == "called"
  if same and known.state ~= "waiting" and not called then return { known.state } end
  if same and not called and known.version == version and known.party == party and known.rank == rank then
    local room = place_of(known.queue)
    if room and redis.call("ZSCORE", key_of("queue", known.queue), app) then
      look_after(room)
      return { "waiting", room }
    end
  end
  if known.order == order then tries, entered = tonumber(known.tries), known.entered end
  leave(app, known)
end

-- Whom somebody waits before in one of its rooms does not pass by.
local function waits_behind(charge)
  local other = charge.phase ~= "n" and first(key_of("room", charge.room))
  if not other then return false end
  local classes = { u = 1, r = 2 }
  local theirs, ours = classes[other] or 3, classes[party] or 3
  if theirs ~= ours or ours == 3 then return theirs <= ours end
  local _, ahead = first(key_of("party", charge.room, other))
  return ahead <= tonumber(rank)
end

local record = { party = party, rank = rank }
redis.call("HSET", key_of("admission", app), "order", order, "wish", wish, "version", version, "party", party,
  "rank", rank, "charges", ARGV[11], "tries", whole(tries + 1), "entered", entered)
local worst, retry_in = lacking(charges, "oic")
if not worst then
  for _, charge in ipairs(charges) do
    if not called and waits_behind(charge) then
      worst = charge
      break
    end
  end
  retry_in = nil
end
if worst then return { "waiting", wait_for(app, record, charges, worst, retry_in and now + retry_in) } end
for _, charge in ipairs(charges) do
  if charge.phase ~= "c" then
    admit(app, charges)
    return { "admitted" }
  end
end
redis.call("DEL", key_of("admission", app))
return { "free" }
