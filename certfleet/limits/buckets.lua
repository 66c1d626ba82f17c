-- Token buckets (GCRA) that mirror a CA's limits; one call decides over all buckets that it names.
--
-- KEYS[i]  limit:<ca>:<limit>:<key>  string  "tat floor", microseconds; no key is a full bucket. Goes when it is full again.
--          tat    theoretical arrival time: when the bucket is full again, with all that we reserved taken off
--          floor  the same by what the CA is known to have counted, 0 when that is past; tat is never below it
-- ARGV[1]  now in microseconds, "0" for this server's own clock (keys written by any other clock do not expire)
-- ARGV[2]  the verb
-- ARGV[3]  block: the time before which there is no token; else "0"
-- ARGV[4...]  interval, burst, cost, mode for each key: microseconds per token; tokens; tokens; spend or check (spend alone looks)
--
--   spend   takes every cost, or none where one bucket lacks it; those in mode check only have to have it
--   check   answers as spend would, and takes nothing
--   refund  gives costs back, but no token that the CA is known to have counted
--   settle  the CA counted what was spent here before
--   count   the CA counted what was not spent here before
--   reset   the bucket is full
--   block   the CA said when: no token before ARGV[3], one then
--
-- Answer: {now, i, allowed, remaining, retry_in, reset_in, allowed, remaining, ...}: text, and four for each key.
--   i          the bucket that decides: of those that deny (else of all) the one that frees last; 0 without keys
--   remaining  whole tokens left     retry_in  until the same would be allowed     reset_in  until the bucket is full
--
-- Numbers are doubles: microseconds fit exactly, nanoseconds would not; "%.0f" because tostring() prints exponents.

local now, verb, till = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local server_clock = now == 0

if server_clock then
  local clock = redis.call("TIME")
  now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
end

local function whole(number)
  return string.format("%.0f", number)
end

local function load(i)
  local bucket = { key = KEYS[i], tat = 0, floor = 0 }
  bucket.interval, bucket.burst = tonumber(ARGV[4 * i]), tonumber(ARGV[4 * i + 1])
  bucket.cost = bucket.interval * tonumber(ARGV[4 * i + 2])
  bucket.check = ARGV[4 * i + 3] == "check"
  bucket.offset = bucket.interval * bucket.burst
  local text = redis.call("GET", bucket.key)
  if text then
    local tat, floor = text:match("^(%d+) (%d+)$")
    bucket.tat, bucket.floor = tonumber(tat), tonumber(floor)
  end
  return bucket
end

local function save(bucket)
  if bucket.tat <= now then
    redis.call("DEL", bucket.key)
    return
  end
  local text = whole(bucket.tat) .. " " .. whole(bucket.floor > now and bucket.floor or 0)
  if server_clock then
    redis.call("SET", bucket.key, text, "PXAT", whole(math.ceil(bucket.tat / 1000)))
  else
    redis.call("SET", bucket.key, text)
  end
end

-- Whole tokens when the bucket is full again at `tat`; truncated, and none below zero (blocked, or the clock was set back).
local function tokens(bucket, tat)
  return math.floor(math.max(0, now - (tat - bucket.offset)) / bucket.interval)
end

local function decide(bucket)
  local tat = math.max(now, bucket.tat)
  local new = tat + bucket.cost
  local spare = now - (new - bucket.offset)
  if spare < 0 then
    return { allowed = 0, remaining = tokens(bucket, tat), retry_in = -spare, reset_in = tat - now }
  end
  local retry_in = math.max(0, bucket.cost - spare)
  return { allowed = 1, remaining = tokens(bucket, new), retry_in = retry_in, reset_in = new - now, tat = new }
end

local function state(bucket, allowed)
  local tat = math.max(now, bucket.tat)
  return { allowed = allowed, remaining = tokens(bucket, tat), retry_in = 0, reset_in = tat - now }
end

local function refund(bucket)
  local before = bucket.tat
  if now <= before then
    bucket.tat = math.max(before - bucket.cost, bucket.floor, now)
    save(bucket)
  end
  return state(bucket, (now <= before and bucket.tat ~= before) and 1 or 0)
end

-- The CA counts what its own bucket allows, and drops the rest: it never goes beyond a full burst.
local function counted(bucket, spent_before)
  local floor = math.max(now, bucket.floor) + bucket.cost
  local took = floor - bucket.offset <= now
  if took then
    if not spent_before then bucket.tat = math.max(now, bucket.tat) + bucket.cost end
    bucket.floor, bucket.tat = floor, math.max(bucket.tat, floor)
    save(bucket)
  end
  return state(bucket, took and 1 or 0)
end

local function block(bucket)
  bucket.floor = math.max(bucket.floor, till + bucket.offset - bucket.interval)
  bucket.tat = math.max(bucket.tat, bucket.floor)
  save(bucket)
  return state(bucket, 1)
end

local function reset(bucket)
  bucket.tat = 0
  save(bucket)
  return state(bucket, 1)
end

local acts = {
  spend = decide,
  check = decide,
  refund = refund,
  settle = function(bucket) return counted(bucket, true) end,
  count = function(bucket) return counted(bucket, false) end,
  reset = reset,
  block = block,
}
local act = acts[verb]
if not act then return redis.error_reply("buckets.lua: unknown verb " .. tostring(verb)) end

local buckets, rows, decisive = {}, {}, 0
for i = 1, #KEYS do
  buckets[i] = load(i)
  rows[i] = act(buckets[i])
  local best, row = rows[decisive], rows[i]
  if not best or row.allowed < best.allowed then
    decisive = i
  elseif row.allowed == best.allowed and row.retry_in > best.retry_in then
    decisive = i
  end
end

if verb == "spend" and (decisive == 0 or rows[decisive].allowed == 1) then
  for i, bucket in ipairs(buckets) do
    if not bucket.check and bucket.cost > 0 then
      bucket.tat = rows[i].tat
      save(bucket)
    end
  end
end

local answer = { whole(now), decisive }
for _, row in ipairs(rows) do
  for _, field in ipairs({ "allowed", "remaining", "retry_in", "reset_in" }) do
    answer[#answer + 1] = whole(row[field])
  end
end
return answer
