-- Token buckets that mirror a CA's limits; one call decides over all buckets that it names. Behind clock.lua, gcra.lua.
--
-- KEYS[i]  a bucket (gcra.lua)
-- ARGV[2]  the verb
-- ARGV[3]  block: the time before which there is no token; else "0"
-- ARGV[4...]  interval, burst, cost, keep, mode for each key: microseconds per token; tokens; tokens; tokens that have to
--             be left; spend or check (spend and reserve only look)
--
--   spend    takes every cost, or none where one bucket lacks it; those in mode check only have to have it
--   reserve  the same, but the CA will count later
--   check    answers as spend would, and takes nothing
--   refund   gives back what was spent
--   release  gives back what was reserved
--   settle   the CA counted what was reserved
--   count    the CA counted what was neither spent nor reserved here
--   reset    the CA has filled the bucket
--   block    the CA said when: no token before ARGV[3], one then
--
-- Answer: {now, i, allowed, remaining, retry_in, reset_in, allowed, remaining, ...}: text, and four for each key.
--   i          the bucket that decides: of those that deny (else of all) the one that frees last; 0 without keys
--   remaining  whole tokens left     retry_in  until the same would be allowed     reset_in  until the bucket is full

local verb, till = ARGV[2], tonumber(ARGV[3])

local function asked(i)
  local at = 5 * i - 1
  local bucket = load_bucket(KEYS[i], tonumber(ARGV[at]), tonumber(ARGV[at + 1]))
  bucket.cost, bucket.keep, bucket.check = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), ARGV[at + 4] == "check"
  return bucket
end

local function decided(bucket)
  return decide(bucket, bucket.cost, bucket.keep)
end

local function refunded(bucket)
  local before = bucket.tat
  if now <= before then
    bucket.tat = math.max(before - bucket.interval * bucket.cost, now)
    save_bucket(bucket)
  end
  return state(bucket, (now <= before and bucket.tat ~= before) and 1 or 0)
end

local acts = {
  spend = decided,
  reserve = decided,
  check = decided,
  refund = refunded,
  release = function(bucket)
    local had = bucket.pending
    release(bucket, bucket.cost)
    return state(bucket, bucket.pending < had and 1 or 0)
  end,
  settle = function(bucket) return state(bucket, settle(bucket, bucket.cost) and 1 or 0) end,
  count = function(bucket) return state(bucket, count(bucket, bucket.cost) and 1 or 0) end,
  reset = function(bucket)
    bucket.tat = 0
    save_bucket(bucket)
    return state(bucket, 1)
  end,
  block = function(bucket)
    block(bucket, till)
    return state(bucket, 1)
  end,
}
local act = acts[verb]
if not act then return redis.error_reply("buckets.lua: unknown verb " .. tostring(verb)) end

local buckets, rows, decisive = {}, {}, 0
for i = 1, #KEYS do
  buckets[i] = asked(i)
  rows[i] = act(buckets[i])
  local best, row = rows[decisive], rows[i]
  if not best or row.allowed < best.allowed then
    decisive = i
  elseif row.allowed == best.allowed and row.retry_in > best.retry_in then
    decisive = i
  end
end

local take = ({ spend = spend, reserve = reserve })[verb]
if take and (decisive == 0 or rows[decisive].allowed == 1) then
  for _, bucket in ipairs(buckets) do
    if not bucket.check and bucket.cost > 0 then take(bucket, bucket.cost) end
  end
end

local answer = { whole(now), decisive }
for _, row in ipairs(rows) do
  for _, field in ipairs({ "allowed", "remaining", "retry_in", "reset_in" }) do
    answer[#answer + 1] = whole(row[field])
  end
end
return answer
