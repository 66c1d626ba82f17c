-- One token bucket (GCRA, as Boulder's package ratelimits has it), behind clock.lua.
--
-- limit:<ca>:<limit>:<key>  string  "tat pending"; no key is a full bucket. Goes when it is full again.
--   tat      theoretical arrival time, microseconds: when the bucket is full again, by what the CA has counted
--   pending  tokens that are reserved: the CA counts them any moment from now on, or never
--
-- The CA counts at another moment than we reserve. A reserved token therefore weighs as if the CA counted it just now,
-- until it has: whatever the order in which it counts, a token that is left here is left there.

local function load_bucket(key, interval, burst)
  local bucket = { key = key, interval = interval, burst = burst, offset = interval * burst, tat = 0, pending = 0 }
  local text = redis.call("GET", key)
  if text then
    local tat, pending = text:match("^(%d+) (%d+)$")
    bucket.tat, bucket.pending = tonumber(tat), tonumber(pending)
  end
  return bucket
end

local function save_bucket(bucket)
  if bucket.tat <= now and bucket.pending == 0 then
    redis.call("DEL", bucket.key)
    return
  end
  local text = whole(bucket.tat) .. " " .. whole(bucket.pending)
  if server_clock and bucket.pending == 0 then
    redis.call("SET", bucket.key, text, "PXAT", whole(math.ceil(bucket.tat / 1000)))
  else
    redis.call("SET", bucket.key, text)
  end
end

-- When the bucket would be full again if everything reserved were counted now.
local function full_at(bucket)
  return math.max(now, bucket.tat) + bucket.interval * bucket.pending
end

-- Whole tokens; truncated, and none below zero (blocked, or the clock was set back).
local function tokens(bucket, full)
  return math.floor(math.max(0, now - (full - bucket.offset)) / bucket.interval)
end

local function state(bucket, allowed)
  local full = full_at(bucket)
  return { allowed = allowed, remaining = tokens(bucket, full), retry_in = 0, reset_in = full - now }
end

-- Whether `cost` tokens are there with `keep` to spare.
local function decide(bucket, cost, keep)
  local full = full_at(bucket)
  local new = full + bucket.interval * cost
  local spare = now - (new + bucket.interval * keep - bucket.offset)
  if spare < 0 then
    return { allowed = 0, remaining = tokens(bucket, full), retry_in = -spare, reset_in = full - now }
  end
  local retry_in = math.max(0, bucket.interval * cost - spare)
  return { allowed = 1, remaining = tokens(bucket, new), retry_in = retry_in, reset_in = new - now }
end

local function spend(bucket, cost)
  bucket.tat = math.max(now, bucket.tat) + bucket.interval * cost
  save_bucket(bucket)
end

local function reserve(bucket, cost)
  bucket.pending = bucket.pending + cost
  save_bucket(bucket)
end

local function release(bucket, cost)
  bucket.pending = math.max(0, bucket.pending - cost)
  save_bucket(bucket)
end

-- The CA counts what its own bucket allows, and drops the rest: it never goes beyond a full burst.
local function count(bucket, cost)
  local new = math.max(now, bucket.tat) + bucket.interval * cost
  local took = new - bucket.offset <= now
  if took then bucket.tat = new end
  save_bucket(bucket)
  return took
end

local function settle(bucket, cost)
  bucket.pending = math.max(0, bucket.pending - cost)
  return count(bucket, cost)
end

-- No token before `till`, one then.
local function block(bucket, till)
  bucket.tat = math.max(bucket.tat, till + bucket.offset - bucket.interval)
  save_bucket(bucket)
end
