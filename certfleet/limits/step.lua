-- What happens to an admitted order, and what of its tokens then. Behind rooms.lua.
--
-- ARGV[3..4]  verb, app; what follows belongs to the verb:
--   send               before newOrder              -> {go} {busy} {waiting} or {state}
--   ordered            newOrder has answered: the CA counted it
--   counted            the CA has issued it, and it cannot be had yet: counted, and nothing of it is given back any more
--   issued charges     the certificate is there: the CA counted it. `charges` hold when there is no record any more
--   refused till line...  the CA answered newOrder 429: nothing was counted, and none of these buckets (charges) has a
--                      token before `till`
--   leave              there is no order any more, or it will not be certified: what was not counted is given back
-- Each is safe to repeat; without a record `issued` counts, `refused` believes, the others do nothing.

local verb, app = ARGV[3], ARGV[4]
local record = load_record(app)
local charges = charges_of(record and record.charges or "")

local function log()
  redis.call("XADD", key_of("admissions"), "MAXLEN", "~", ADMISSIONS, "*", "app", app, "party", record.party,
    "rank", record.rank, "tries", record.tries, "entered", record.entered, "admitted", record.admitted)
end

-- Back to where it came from: something that was thought to be there is not.
local function wait_again(charge, at)
  give_up_turns(app, charges)
  redis.call("HDEL", key_of("admission", app), "sent")
  wait_for(app, record, charges, charge, at)
  return { "waiting" }
end

-- How many newOrders may be under way that one bucket is spent by: what it gains in a second, one at least. If the CA
-- knows of fewer tokens than we do (another client), each of them is refused, and one a refill is enough to learn it.
local function full_up(charge)
  local name = key_of("turn", charge.room)
  redis.call("ZREMRANGEBYSCORE", name, "-inf", whole(now))
  return redis.call("ZCARD", name) >= math.max(1, math.ceil(1000000 / charge.interval))
end

local function send()
  if record.sent then
    -- Nothing was heard of an earlier one: it may have been counted.
    each(charges, "o", settle)
    redis.call("HDEL", key_of("admission", app), "sent")
    give_up_turns(app, charges)
    local worst, retry_in = lacking(charges, "o")
    if worst then
      free(charges, "i")
      return wait_again(worst, now + retry_in)
    end
    each(charges, "o", reserve)
  end
  -- What the CA said meanwhile (429) holds for those admitted before, too.
  for _, charge in ipairs(charges) do
    if charge.phase ~= "n" then
      local bucket = bucket_of(charge)
      local counted = math.max(now, bucket.tat) + bucket.interval - bucket.offset
      if counted > now then
        free(charges, "oi")
        return wait_again(charge, counted)
      end
    end
  end
  for _, charge in ipairs(charges) do
    if (charge.phase == "o" or charge.phase == "i") and full_up(charge) then return { "busy" } end
  end
  for _, charge in ipairs(charges) do
    if charge.phase == "o" or charge.phase == "i" then
      local name = key_of("turn", charge.room)
      redis.call("ZADD", name, whole(now + PLACE), app)
      redis.call("PEXPIRE", name, whole(PLACE / 1000))
    end
  end
  redis.call("HSET", key_of("admission", app), "sent", whole(now))
  return { "go" }
end

local function ordered()
  each(charges, "o", settle)
  give_up_turns(app, charges)
  local left = {}
  for _, charge in ipairs(charges) do
    if charge.phase == "i" or charge.phase == "n" then left[#left + 1] = line_of(charge) end
  end
  redis.call("HSET", key_of("admission", app), "state", "ordered", "charges", table.concat(left, "\n"))
  redis.call("HDEL", key_of("admission", app), "sent")
end

local function counted()
  each(charges, "oi", settle)
  each(charges, "n", count)
  give_up_turns(app, charges)
  redis.call("HSET", key_of("admission", app), "state", "ordered", "charges", "")
  redis.call("HDEL", key_of("admission", app), "sent")
end

local function issued()
  if record and record.state ~= "waiting" and record.state ~= "called" then
    each(charges, "oi", settle)
    each(charges, "n", count)
    give_up_turns(app, charges)
    log()
  else
    each(charges_of(ARGV[5]), "in", count)
    if record and record.state == "waiting" then step_out(app, record) end
  end
  -- Every name of it is valid: failures in a row are over.
  for _, charge in ipairs(charges_of(ARGV[5])) do
    if charge.phase == "v" then redis.call("DEL", charge.key) end
  end
  redis.call("DEL", key_of("admission", app))
end

local function refused()
  if record and record.state == "admitted" then
    record.sent = nil
    leave(app, record)
  end
  for i = 6, #ARGV do
    for _, charge in ipairs(charges_of(ARGV[i])) do
      block(bucket_of(charge), tonumber(ARGV[5]))
      redis.call("HDEL", key_of("openings"), charge.room)
    end
  end
end

if verb == "issued" then
  issued()
elseif verb == "refused" then
  refused()
elseif not record then
  return { "none" }
elseif verb == "send" then
  if record.state == "called" then return { "waiting" } end
  if record.state ~= "admitted" then return { record.state } end
  return send()
elseif verb == "ordered" then
  if record.state == "admitted" then ordered() end
elseif verb == "counted" then
  if record.state ~= "waiting" and record.state ~= "called" then counted() end
elseif verb == "leave" then
  leave(app, record)
else
  return redis.error_reply("step.lua: unknown verb " .. tostring(verb))
end
return { "done" }
