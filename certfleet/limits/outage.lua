-- A CA that does not answer: who may try next, and who waits until it is back. Behind clock.lua, schedule.lua.
--
-- ARGV[2..4]  prefix of every key, verb, the CA's id; what follows belongs to the verb:
--   failed directory app rank at   a request of the app's order got no answer; the CA is not to be tried before `at` (0: it
--                                  did not say)          -> {standing, since, next, failures in a row}; standing is
--                                  `closed` when it is away from this one on
--   enter app rank                 the app's order would like to ask the CA         -> {standing, since, next, failures}
--   answered                       the CA has answered somebody                     -> {standing} as it was before
--   unheard app                    the app's order had its turn, and asked the CA nothing
--   open                           the time on the agenda has come                  -> {when again or "-", app, app, ...}
-- standing: go (nothing is known against it), doubted (too few failures to hold anybody), away (nobody but the app whose
--   turn it is asks)
--
-- outage:<id>          hash        of a CA of which a request got no answer:
--     directory since failures     who it is; when the first of these requests failed; how many did without any answer between
--     open pause next              "1" while it is away; the pause between two tries and when the next one is, microseconds
--     only                         the one app whose requests failed, "" if it is not the only one
--     trying until last            the app whose turn it is, and until when; the app whose turn it was last
--     back gone                    it has answered again then: this is only remembered, in case it does not last; how many
--                                  orders have been let go since
-- outage:<id>:waiting  sorted set  app -> rank: the orders that wait for it, the most urgent first
-- outage:<id>:tried    set         those of them whose turn it was: others come first, one order alone proves nothing
-- outages              hash        id -> directory, of each hash above
--
-- Who waits costs nothing: there is one time on the agenda, `outage:<id>`, for the next try and for the way back.

local IN_A_ROW = 3 -- failures without any answer between them, until nobody else is let through
local FIRST, LONGEST = 5000000, 300000000 -- microseconds between tries: doubled each time
local ASKED = 3600000000 -- microseconds of a Retry-After that are believed
local TURN = 90000000 -- microseconds that one order may try: two time-outs and some
local RELAPSE = 600000000 -- microseconds in which another failure is still the same outage
local AT_ONCE = 500 -- orders let go by one run; the script holds Redis for a few milliseconds

local prefix, verb, id = ARGV[2], ARGV[3], ARGV[4]
local record_key = prefix .. "outage:" .. id
local waiting_key, tried_key, all_key = record_key .. ":waiting", record_key .. ":tried", prefix .. "outages"
local member = "outage:" .. id

local flat, record = redis.call("HGETALL", record_key), nil
if #flat > 0 then
  record = {}
  for i = 1, #flat, 2 do record[flat[i]] = flat[i + 1] end
end

local function number(name)
  return tonumber(record[name] or "0")
end

local function set(...)
  local words = { ... }
  for i = 1, #words, 2 do record[words[i]] = words[i + 1] end
  redis.call("HSET", record_key, unpack(words))
end

local function clear(...)
  for _, name in ipairs({ ... }) do record[name] = nil end
  redis.call("HDEL", record_key, ...)
end

local function forget()
  redis.call("DEL", record_key, waiting_key, tried_key)
  redis.call("HDEL", all_key, id)
end

local function trying()
  return record.trying and number("until") > now
end

local function answer()
  local standing = "doubted"
  if record.open then standing = "away" end
  return { standing, record.since, record.next or "0", record.failures }
end

-- The most urgent first; what is due at the same moment goes in the agenda's order.
local function let_go()
  local apps = redis.call("ZRANGE", waiting_key, 0, AT_ONCE - 1)
  local gone = number("gone")
  for i, app in ipairs(apps) do schedule("order:" .. app, number("back") + gone + i - 1) end
  set("gone", whole(gone + #apps))
  redis.call("ZREMRANGEBYRANK", waiting_key, 0, AT_ONCE - 1)
  redis.call("DEL", tried_key)
  return apps
end

local function give_turn(app)
  redis.call("ZREM", waiting_key, app)
  redis.call("SADD", tried_key, app)
  set("trying", app, "until", whole(now + TURN), "last", app)
  schedule(member, now + TURN)
end

local function next_to_try()
  for _ = 1, 2 do
    local from = 0
    repeat
      local apps = redis.call("ZRANGE", waiting_key, from, from + 99)
      for _, app in ipairs(apps) do
        if redis.call("SISMEMBER", tried_key, app) == 0 then return app end
      end
      from = from + 100
    until #apps == 0
    redis.call("DEL", tried_key) -- it was everybody's turn
    if record.last and redis.call("ZCARD", waiting_key) > 1 then redis.call("SADD", tried_key, record.last) end
  end
  return nil
end

local function failed(directory, app, rank, at)
  if record and record.back and number("back") + RELAPSE <= now then
    forget()
    record = nil
  end
  if not record then
    record = {}
    set("directory", directory, "since", whole(now), "failures", "0", "pause", "0", "only", app)
    redis.call("HSET", all_key, id, directory)
  elseif record.back then
    clear("back")
    redis.call("DEL", tried_key)
    set("failures", "0", "only", app)
  end
  if record.only ~= app then set("only", "") end
  set("failures", whole(number("failures") + 1))
  redis.call("ZADD", waiting_key, rank, app)
  redis.call("SADD", tried_key, app)
  local pause
  local closed = not record.open and number("failures") >= IN_A_ROW
  if closed then
    pause = math.max(FIRST, number("pause"))
  elseif record.open and record.trying == app then
    pause = math.min(LONGEST, number("pause") * 2)
  end
  if pause then
    local again = math.max(now + pause, math.min(at, now + ASKED))
    set("open", "1", "pause", whole(pause), "next", whole(again))
    clear("trying", "until")
    schedule(member, again)
  end
  local said = answer()
  if closed then said[1] = "closed" end
  return said
end

local function enter(app, rank)
  if not record or record.back then return { "go", "0", "0", "0" } end
  if not record.open or (trying() and record.trying == app) then return { "go", record.since, "0", record.failures } end
  -- As long as one order alone fails it may be at fault itself: another one shows that at once.
  local shows = record.only ~= "" and record.only ~= app
  if not trying() and (shows or number("next") <= now) then
    give_turn(app)
    return { "go", record.since, record.next, record.failures }
  end
  redis.call("ZADD", waiting_key, rank, app)
  schedule(member, trying() and number("until") or number("next"))
  return answer()
end

local function answered()
  if not record or record.back then return { "go" } end
  local before = answer()[1]
  clear("trying", "until", "next")
  if record.open or number("pause") > 0 then
    clear("open")
    set("back", whole(now), "failures", "0", "gone", "0")
    if before ~= "away" then
      -- Those that failed since it was back have times of their own; others may be held since before, and not let go yet.
      for _, app in ipairs(redis.call("SMEMBERS", tried_key)) do redis.call("ZREM", waiting_key, app) end
      redis.call("DEL", tried_key)
    end
    if redis.call("ZCARD", waiting_key) > 0 then schedule(member, now) end
  else
    forget()
  end
  return { before }
end

local function open()
  if not record then return { "-" } end
  if record.back then
    local apps = let_go()
    return { redis.call("ZCARD", waiting_key) > 0 and whole(now) or "-", unpack(apps) }
  end
  if not record.open then return { "-" } end
  if trying() then return { record["until"] } end
  if number("next") > now then return { record.next } end
  local app = next_to_try()
  if not app then return { "-" } end -- whoever comes first has the turn
  give_turn(app)
  schedule("order:" .. app, now)
  return { record["until"], app }
end

if verb == "failed" then
  return failed(ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8]))
elseif verb == "enter" then
  return enter(ARGV[5], ARGV[6])
elseif verb == "answered" then
  return answered()
elseif verb == "unheard" then
  if record and record.open and record.trying == ARGV[5] then
    clear("trying", "until")
    schedule(member, now)
  end
  return { "done" }
elseif verb == "open" then
  return open()
end
return redis.error_reply("outage.lua: unknown verb " .. tostring(verb))
